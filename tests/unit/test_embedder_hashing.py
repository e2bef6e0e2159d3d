"""The hashing provider: the same everywhere and for ever, and fast enough to measure everything else with it."""

import time

import numpy as np

from embedder.hashing import STEP_BYTES, HashingEmbedder

EMBEDDER = HashingEmbedder()


def test_vectors_are_the_same_on_every_machine() -> None:
    (vector,) = EMBEDDER.embed(["Hello, Kafka"]) * np.sqrt(8)
    signs = {0: -1, 42: -1, 83: 1, 92: -1, 108: 1, 148: -1, 198: -1, 312: 1}
    assert {int(place): round(float(vector[place])) for place in np.flatnonzero(vector)} == signs


def test_case_and_punctuation_do_not_matter() -> None:
    vectors = EMBEDDER.embed(["Red apples, GREEN pears!", "green apples red pears", "ÄPFEL", "äpfel"])
    assert np.array_equal(vectors[0], vectors[1])
    assert np.array_equal(vectors[2], vectors[3])


def test_similarity_is_the_share_of_common_words() -> None:
    one, two = EMBEDDER.embed(["a b c d", "a b e f"])
    assert abs(one @ two - 0.5) < 0.2


def test_words_do_not_run_across_texts() -> None:
    assert np.array_equal(
        EMBEDDER.embed(["snow", "flake"]), np.concatenate([EMBEDDER.embed(["snow"]), EMBEDDER.embed(["flake"])])
    )


def test_texts_without_words_differ() -> None:
    vectors = EMBEDDER.embed(["!", "?", "", " "])
    assert len({vector.tobytes() for vector in vectors}) == 4


def test_a_text_longer_than_one_step_is_hashed_whole() -> None:
    long = "x " * STEP_BYTES + "needle"
    with_needle, without, needle = EMBEDDER.embed([long, "x " * STEP_BYTES, "needle"])
    assert with_needle @ needle > without @ needle


def test_it_is_fast() -> None:
    texts = [
        f"message {number} of a hundred characters or so, with a dozen words in it, as they are in a log"
        for number in range(2_000)
    ]
    EMBEDDER.embed(texts[:100])
    best = min(seconds(texts) for _ in range(5))
    assert best / len(texts) < 20e-6


def seconds(texts: list[str]) -> float:
    began = time.process_time()
    EMBEDDER.embed(texts)
    return time.process_time() - began
