"""Prints minilm_ranges.py: the values that the fp32 model's activations take over the lines of the given files.

`python -m embedder.build_minilm --fp32`, then `python -m embedder.calibrate FILE... > embedder/minilm_ranges.py` and
`make format`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper
from tokenizers import Tokenizer

from embedder import minilm_files
from embedder.minilm_graph import LAYERS
from embedder.protocol import ModelError

# From which value a channel of a feed-forward layer's input, or a hidden unit, is loud. Lower limits gained nothing.
LOUD_CHANNEL = 8.0
LOUD_UNIT = 6.0

PAGE = '''"""The ranges of the activations of all-MiniLM-L6-v2, for its int8 form. Printed by embedder/calibrate.py.

Measured over {texts:,} texts: Debian's package descriptions, with source code, a hundred languages and gibberish.
"""

# The lowest and the highest value at each place that is quantised, without what is loud.
RANGES: dict[str, tuple[float, float]] = {ranges}

# Channels of a feed-forward layer's input that go further, on one side or the other.
LOUD_CHANNELS: dict[str, dict[int, float]] = {channels}

# Hidden units that go further than the range of "N.units".
LOUD_UNITS: dict[str, dict[int, float]] = {units}
'''


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m embedder.calibrate",
        description=__doc__,
        epilog="exit codes: 0 done, 1 the fp32 model is not there or damaged, 2 wrong usage",
    )
    parser.add_argument("files", nargs="+", metavar="FILE", type=Path, help="in UTF-8, a text a line")
    try:
        texts = [line for file in parser.parse_args(arguments).files for line in lines(file)]
    except (OSError, UnicodeDecodeError) as error:
        parser.error(str(error))
    if not texts:
        parser.error("no text in there")
    try:
        print(page(texts))
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def lines(file: Path) -> list[str]:
    return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def page(texts: Sequence[str]) -> str:
    """The whole of minilm_ranges.py. Raises ModelError if the fp32 model is not there."""
    lows, highs = extremes(texts)
    limits = {"feed": LOUD_CHANNEL, "units": LOUD_UNIT}
    ranges = {}
    loud: dict[str, dict[str, dict[int, float]]] = {"feed": {}, "units": {}}
    for place, low in lows.items():
        part = place.split(".")[1]
        limit = limits.get(part, np.inf)
        ranges[place] = (round(max(low.min(), -limit), 2), round(min(highs[place].max(), limit), 2))
        most = np.maximum(-low, highs[place])
        if part in loud:
            loud[part][place] = {int(at): round(float(most[at]), 1) for at in np.flatnonzero(most > limit)}
    return PAGE.format(texts=len(texts), ranges=ranges, channels=loud["feed"], units=loud["units"])


def extremes(texts: Sequence[str]) -> tuple[dict[str, NDArray[np.float32]], dict[str, NDArray[np.float32]]]:
    """The lowest and the highest value of each channel at each place that is quantised."""
    folder = minilm_files.MODELS / minilm_files.FP32
    minilm_files.check(folder)
    places = [f"{layer}.{part}" for layer in range(LAYERS) for part in ("attention", "context", "feed", "units")]
    model = onnx.load(str(folder / minilm_files.GRAPH))
    model.graph.output.extend(helper.make_tensor_value_info(place, TensorProto.FLOAT, None) for place in places)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / minilm_files.TOKENIZER))
    tokenizer.enable_truncation(minilm_files.WINDOW_PIECES)
    lows: dict[str, NDArray[np.float32]] = {}
    highs: dict[str, NDArray[np.float32]] = {}
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids], np.int32)
        for place, values in zip(places, session.run(places, {"ids": ids}), strict=True):
            low, high = values.min(axis=(0, 1)), values.max(axis=(0, 1))
            lows[place] = np.minimum(lows.get(place, low), low)
            highs[place] = np.maximum(highs.get(place, high), high)
    return lows, highs


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
