"""Which texts can have no vector is found, by what the provider says or by halving, and no neighbour suffers."""

from collections.abc import Sequence

import numpy as np
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from numpy.typing import NDArray

from embedder import EmbedderUnavailable, UnembeddableText
from embedder.hashing import HashingEmbedder
from tasks.vectors import LONGEST_PAUSE_SECONDS, seconds_to_wait, vectors_and_reasons

TEXTS = [f"text {number}" for number in range(64)]


class Picky(HashingEmbedder):
    """The hashing provider, which names the first bad text, or only raises, or gives no numbers for all of them."""

    def __init__(self, how: str, bad: set[str]) -> None:
        super().__init__()
        self.how, self.bad = how, bad
        self.calls: list[int] = []
        self.failed = 0
        self.away_from_call = 10**9

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(self.calls) >= self.away_from_call:
            raise EmbedderUnavailable("429")
        self.calls.append(len(texts))
        places = [place for place, text in enumerate(texts) if text in self.bad]
        self.failed += bool(places)
        if places and self.how == "named":
            raise UnembeddableText("not this one", places[0])
        if places and self.how == "raised":
            raise ValueError("one of them")
        vectors = super().embed(texts)
        vectors[places, 1] = np.nan
        return vectors


@pytest.mark.parametrize("how", ["named", "raised", "nan"])
@pytest.mark.parametrize("bad", [set(), {0}, {63}, {20}, {20, 21}, {0, 31, 32, 63}, set(range(64))], ids=str)
def test_each_bad_text_and_no_other(how: str, bad: set[int]) -> None:
    vectors, reasons, away, left = vectors_and_reasons(Picky(how, {TEXTS[place] for place in bad}), TEXTS)
    assert reasons.keys() == bad
    assert (away, list(left)) == (None, [])
    good = sorted(set(range(64)) - bad)
    np.testing.assert_array_equal(vectors[good], HashingEmbedder().embed(TEXTS)[good])
    assert vectors.shape == (64, HashingEmbedder.dimensions)


@pytest.mark.parametrize("how", ["named", "raised", "nan"])
@pytest.mark.parametrize("calls", [0, 1, 2, 3, 10, 15])
def test_an_outage_keeps_what_was_found_until_then(how: str, calls: int) -> None:
    bad = {0, 20, 40}
    picky = Picky(how, {TEXTS[place] for place in bad})
    picky.away_from_call = calls
    vectors, reasons, away, left = vectors_and_reasons(picky, TEXTS)
    assert (away is None) == (not left)
    assert (len(left) == 64) == (calls == 0 or (how == "raised" and calls < 10))
    assert reasons.keys() == bad - set(left)
    good = sorted(set(range(64)) - bad - set(left))
    np.testing.assert_array_equal(vectors[good], HashingEmbedder().embed(TEXTS)[good])
    assert vectors.shape == (64, HashingEmbedder.dimensions)


def test_a_provider_that_allows_two_calls_at_a_time_gets_to_the_end() -> None:
    waiting, failed = TEXTS, 0
    picky = Picky("named", {TEXTS[place] for place in (0, 20, 21, 40)})
    for _ in range(20):
        picky.away_from_call = len(picky.calls) + 2
        made = vectors_and_reasons(picky, waiting)
        failed += len(made.reasons)
        waiting = [waiting[place] for place in made.left]
    assert (waiting, failed) == ([], 4)


def test_one_that_is_named_costs_two_more_questions() -> None:
    picky = Picky("named", {TEXTS[20]})
    vectors_and_reasons(picky, TEXTS)
    assert picky.calls == [64, 20, 43]


@pytest.mark.parametrize("bad", [{5, 20}, {20, 21, 40}, set(range(64))], ids=["two", "three", "all"])
def test_one_that_is_named_is_never_asked_for_again(bad: set[int]) -> None:
    picky = Picky("named", {TEXTS[place] for place in bad})
    assert vectors_and_reasons(picky, TEXTS).reasons.keys() == bad
    assert picky.failed == len(bad)
    assert len(picky.calls) <= 1 + 3 * len(bad)
    assert sum(picky.calls) < 64 * 8


class Limited(HashingEmbedder):
    """The hashing provider in a process with memory for so many texts at once, or at the end of its time."""

    def __init__(self, room: int, error: type[Exception]) -> None:
        super().__init__()
        self.room, self.error = room, error

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if len(texts) > self.room:
            raise self.error
        return super().embed(texts)


def test_memory_that_is_too_small_for_all_texts_is_enough_for_some() -> None:
    made = vectors_and_reasons(Limited(10, MemoryError), TEXTS)
    assert made.reasons == {}
    np.testing.assert_array_equal(made.vectors, HashingEmbedder().embed(TEXTS))


@pytest.mark.parametrize(("room", "error"), [(0, MemoryError), (0, SoftTimeLimitExceeded), (10, SoftTimeLimitExceeded)])
def test_what_cuts_a_try_short_is_no_texts_fault(room: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        vectors_and_reasons(Limited(room, error), TEXTS)


@pytest.mark.parametrize(
    ("asked", "paused"), [(None, 1.0), (7.0, 7.0), (86_400.0, LONGEST_PAUSE_SECONDS)], ids=["not", "little", "a day"]
)
def test_a_provider_is_left_alone_as_long_as_it_asks_for_up_to_a_bound(asked: float | None, paused: float) -> None:
    assert seconds_to_wait(EmbedderUnavailable("429", retry_after=asked)) == paused
