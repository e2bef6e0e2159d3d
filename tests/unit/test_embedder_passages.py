"""Cutting texts into passages: they cover any text, fit the window, and end where sentences do, if that can be."""

import time
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedder.minilm import MiniLM
from embedder.passages import split_characters, split_pieces
from tests.embedder_parts import int8_model

# Texts with words, sentences, runs of one character, and whatever else Unicode has.
PARTS = st.one_of(
    st.sampled_from(
        ["Kafka", "log", "offset", "。", "漢字", "한국", "e\u0301", "\u200d", "😀", "'s", "(see", "x" * 90]
    ),
    st.sampled_from([" ", ". ", "! ", "?\n", "\n\n", "\t", ".", "…” ", ", "]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    st.integers(1, 200).map(lambda count: "ab " * count),
)
TEXTS = st.lists(PARTS, max_size=200).map("".join)
valid = settings(max_examples=60, deadline=None)


@cache
def tokenizer() -> Tokenizer:
    return MiniLM(folder=int8_model()).tokenizer


def assert_covered(text: str, spans: list[tuple[int, int]]) -> None:
    assert spans[0][0] == 0
    assert spans[-1][1] == len(text)
    for (start, end), (next_start, next_end) in pairwise(spans):
        assert start < next_start <= end < next_end


@given(TEXTS, st.integers(10, 60))
@example("", 10)
@example("a" * 10, 10)
@example("a" * 11, 10)
@valid
def test_passages_of_characters_fit_and_cover(text: str, window: int) -> None:
    spans = split_characters(text, window, window // 8)
    assert_covered(text, spans)
    assert all(end - start <= window for start, end in spans)


@pytest.mark.model
@given(TEXTS, st.sampled_from([200, 254]))
@valid
def test_passages_of_word_pieces_fit_and_cover(text: str, window: int) -> None:
    spans = split_pieces(text, tokenizer(), window, 32)
    assert_covered(text, spans)
    for start, end in spans:
        assert len(tokenizer().encode(text[start:end], add_special_tokens=False).ids) <= window


def test_sentences_stay_whole_where_they_fit() -> None:
    text = "One two three. Four five six! Seven eight nine? Ten eleven twelve."
    parts = [text[start:end] for start, end in split_characters(text, 40, 20)]
    assert parts == [
        "One two three. Four five six! ",
        "Four five six! Seven eight nine? ",
        "Seven eight nine? Ten eleven twelve.",
    ]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('He said "yes." She did not.', ['He said "yes." ', "She did not."]),
        ("今天天气很好。我们去公园散步吧！好的。", ["今天天气很好。我们去公园散步吧！", "好的。"]),
        ("a first line\na second one", ["a first line\n", "a second one"]),
    ],
)
def test_what_ends_a_sentence(text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in split_characters(text, len(text) - 1, 0)] == parts


def test_long_sentences_are_cut_between_words() -> None:
    text = "alpha beta gamma delta epsilon zeta eta theta"
    parts = [text[start:end] for start, end in split_characters(text, 20, 8)]
    assert parts == ["alpha beta gamma ", "gamma delta epsilon ", "epsilon zeta eta ", "eta theta"]


@pytest.mark.parametrize("unit", ["!", ". ", "\n", " ", "a", "。", "!\u200b", '."'])
def test_no_text_takes_long(unit: str) -> None:
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    assert_covered(text, split_characters(text, 1_000, 100))
    assert time.process_time() - began < 2
