"""The vectors that are embedded once, and kept for later runs."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import corpus, texts
from embedder.hashing import HashingEmbedder
from stack import places


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the vectors are kept."""
    monkeypatch.setattr(places, "LOCAL", tmp_path)
    return tmp_path / "bench" / "vectors"


def test_vectors_are_kept_and_only_those_that_are_missing_are_embedded(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held, embedder, asked = list(texts.made_up(1_020)), HashingEmbedder(), []

    class Counting:
        model, dimensions = embedder.model, embedder.dimensions

        def embed(self, some: list[str]) -> np.ndarray:
            asked.append(len(some))
            return embedder.embed(some)

    counting: Any = Counting()
    for count in (1_000, 1_020, 1_010):
        assert np.array_equal(
            corpus.kept_vectors(counting, held[:count]), embedder.embed([t.text for t in held[:count]])
        )
    assert asked == [1_000, 20]
    assert len(list(kept.iterdir())) == 1


@pytest.mark.parametrize("length", [0, 50, 3_000])
def test_a_file_that_was_cut_off_is_begun_anew(kept: Path, length: int) -> None:
    held, embedder = list(texts.made_up(20)), HashingEmbedder()
    vectors = corpus.kept_vectors(embedder, held)
    (file,) = kept.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:length])
    assert np.array_equal(corpus.kept_vectors(embedder, held), vectors)
    assert file.read_bytes() == whole


def test_what_is_kept_stays_whole_where_saving_is_broken_off(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, embedder = list(texts.made_up(1_020)), HashingEmbedder()
    vectors = corpus.kept_vectors(embedder, held[:1_000])

    def save(output: Any, _vectors: np.ndarray) -> None:
        output.write(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(np, "save", save)
        with pytest.raises(KeyboardInterrupt):
            corpus.kept_vectors(embedder, held)
    (file,) = kept.iterdir()
    assert np.array_equal(np.load(file), vectors)
