"""The provider for the models of the fastembed package, which is an extra: from the hub, or from a local folder."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from embedder.passages import split_pieces
from embedder.protocol import ModelError, encode_all

if TYPE_CHECKING:
    from embedder.protocol import Span, Vectors

# Texts that are run together; they are sorted by length, so that few tokens are padding.
BATCH_TEXTS = 16


class FastEmbedEmbedder:
    """A model that fastembed knows by name. `folder` holds its files; without one they are fetched from the hub."""

    worth_keeping = True
    batch_max = None

    def __init__(self, model: str, folder: str = "", threads: int = 1) -> None:
        """Raises ModelError if the package or the model cannot be loaded."""
        try:
            package = importlib.import_module("fastembed")
        except ImportError as error:
            raise ModelError(
                f"EMBEDDING_PROVIDER=fastembed needs a further package ({error}): "
                "install it with `.venv/bin/python -m pip install fastembed`"
            ) from None
        try:
            self.embedding = package.TextEmbedding(
                model, threads=threads, cuda=False, specific_model_path=folder or None
            )
            tokenizer: Tokenizer = self.embedding.model.tokenizer
            window = (tokenizer.truncation or {})["max_length"] - tokenizer.num_special_tokens_to_add(is_pair=False)
        except Exception as error:  # from the package, ONNX Runtime, the tokenizer or the hub's client
            where = f"from {folder}" if folder else "from the hub; FASTEMBED_FOLDER takes a folder with its files"
            raise ModelError(f"the model {model} cannot be loaded {where}: {error}") from error
        self.model = model
        self.dimensions = self.embedding.embedding_size
        self.window = window
        self.tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def passages(self, text: str) -> list[Span]:
        return split_pieces(text, self.tokenizer, self.window, self.window // 8)

    def embed(self, texts: Sequence[str]) -> Vectors:
        encode_all(texts)
        order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for row, vector in zip(order, self.embedding.embed([texts[row] for row in order], BATCH_TEXTS), strict=True):
            vectors[row] = vector / np.linalg.norm(vector)
        return vectors
