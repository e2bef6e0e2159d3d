"""all-MiniLM-L6-v2 on ONNX Runtime: real embeddings of English texts, on the processor, without a network.

The model is built beforehand (embedder/build_minilm.py); here it is loaded and run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from embedder import minilm_files
from embedder.minilm_files import WINDOW_PIECES
from embedder.passages import split_pieces
from embedder.protocol import ModelError, encode_all
from portions import portions

if TYPE_CHECKING:
    from embedder.protocol import Span, Vectors

CONTENT_PIECES = WINDOW_PIECES - 2  # [CLS] and [SEP] take two
OVERLAP_PIECES = 32
SEPARATOR = 102

# Texts are run together only with texts of the same number of word pieces, up to this many pieces in all. More are no
# faster: one text of 24 pieces alone already gets 80 % of the speed. This bounds the memory to about 10 MB a thread.
BATCH_PIECES = 512
# The word pieces of up to this many texts or characters are held at once: 100 bytes each.
PORTION_TEXTS = 1024
PORTION_CHARS = 200_000


class MiniLM:
    """The model in a folder that the builder has made, the int8 one by default. Loading takes 0.1 s."""

    dimensions = 384
    worth_keeping = True
    batch_max = None

    def __init__(self, threads: int = 1, folder: Path | None = None) -> None:
        """`threads` compute one call of `embed`. Raises ModelError if the model's files are missing or damaged."""
        folder = folder or minilm_files.MODELS / minilm_files.INT8
        minilm_files.check(folder)
        self.model = folder.name
        # Two workers of one thread are faster than one of two. The tokenizer is 1 % of the work, and gets no threads.
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / minilm_files.TOKENIZER))
            self.session = session(folder / minilm_files.GRAPH, threads)
        except Exception as error:  # both libraries raise bare Exceptions
            raise ModelError(f"the model {self.model} cannot be loaded: {error}") from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def passages(self, text: str) -> list[Span]:
        return split_pieces(text, self.tokenizer, CONTENT_PIECES, OVERLAP_PIECES)

    def embed(self, texts: Sequence[str]) -> Vectors:
        encode_all(texts)
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for portion in portions(([1] * len(texts), PORTION_TEXTS), (map(len, texts), PORTION_CHARS)):
            pieces = self._pieces(texts[portion])
            for rows in batches([len(ids) for ids in pieces]):
                ids = np.array([pieces[row] for row in rows], dtype=np.int32)
                vectors[[portion.start + row for row in rows]] = self.session.run(None, {"ids": ids})[0]
        return vectors

    def _pieces(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text's word pieces, cut off at the window."""
        cut = []
        for encoding in self.tokenizer.encode_batch_fast(texts):
            ids = encoding.ids
            cut.append(ids if len(ids) <= WINDOW_PIECES else [*ids[: WINDOW_PIECES - 1], SEPARATOR])
        return cut


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """The numbers of the texts, as batches of one length."""
    same: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        same.setdefault(length, []).append(row)
    for length, rows in same.items():
        size = max(1, BATCH_PIECES // length)
        for first in range(0, len(rows), size):
            yield rows[first : first + size]


def session(graph: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # The graph is made of fused operators already. ONNX Runtime's own fusions would bring SkipLayerNormalization back,
    # which is slow, and move the quantisation to where it costs more.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # Most shapes of a batch come only once: memory plans, which are kept for each shape, would grow without end.
    options.enable_mem_pattern = False
    options.log_severity_level = 3
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
