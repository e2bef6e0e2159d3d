"""The built MiniLM models: where they lie, whether they are whole, and how long a text they take. Nothing here builds
or runs them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from embedder.protocol import ModelError
from settings import ROOT

MODELS = ROOT / ".local" / "models"
INT8 = "all-MiniLM-L6-v2-int8"
FP32 = "all-MiniLM-L6-v2"

GRAPH = "model.onnx"
TOKENIZER = "tokenizer.json"
MANIFEST = "manifest.json"

# The longest text, in word pieces, that the model was trained on: the built models have positions for no more.
WINDOW_PIECES = 256

# To be raised when the builder makes something else of the same weights: models built before are then built anew.
RECIPE = 1


def check(folder: Path) -> None:
    """Raises ModelError unless the folder holds what the builder wrote, byte for byte. Takes 20 ms for int8."""
    rebuild = f"build it with `python -m embedder.build_minilm{' --fp32' if folder.name == FP32 else ''}`"
    if not folder.is_dir():
        raise ModelError(f"the model {folder.name} is not there: {rebuild}")
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        recipe, sums = int(manifest["recipe"]), dict(manifest["sha256"])
    except (OSError, ValueError, KeyError, TypeError):
        raise ModelError(f"the model {folder.name} is damaged ({MANIFEST}): {rebuild}") from None
    if recipe != RECIPE or set(sums) != {GRAPH, TOKENIZER}:
        raise ModelError(f"the model {folder.name} was built by another version of the builder: {rebuild}")
    for name, expected in sums.items():
        try:
            found = checksum(folder / name)
        except OSError as error:
            raise ModelError(f"the model {folder.name} is damaged ({name}: {error.strerror}): {rebuild}") from None
        if found != expected:
            raise ModelError(f"the model {folder.name} is damaged ({name}): {rebuild}")


def write_manifest(folder: Path) -> None:
    sums = {name: checksum(folder / name) for name in (GRAPH, TOKENIZER)}
    (folder / MANIFEST).write_text(json.dumps({"recipe": RECIPE, "sha256": sums}, indent=2) + "\n", encoding="utf-8")


def checksum(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
