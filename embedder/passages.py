"""Cutting a long text into overlapping passages at ends of sentences, or else between words.

Knows no model: a unit is whatever a model's window counts, a word piece or a character.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

from embedder.protocol import encode_all

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from embedder.protocol import Span

# Where a sentence starts: behind . ! ? or … (with a closing quote or bracket) and white space; behind their full-width
# forms, which no space follows; and on a new line. "e.g. this" is cut too: a cut too many costs little. Look-behinds
# keep the search linear: a text may be 100,000 exclamation marks.
SENTENCE_START = re.compile(
    r"""(?<=[.!?…])\s+|(?<=[.!?…]["')\]»”’])\s+|(?<=[。！？｡])(?![。！？｡」』”’）])\s*|(?<=[。！？｡][」』”’）])\s*|\n\s*"""
)

WORD_START = re.compile(r"(?<=\s)\S")


def split(text: str, units: Sequence[int], cuts: Sequence[int], window: int, overlap: int) -> list[Span]:
    """Spans of characters of at most `window` units each, that cover the text and share about `overlap` units.

    units: where each unit starts in the text, ascending, more than `window` of them. cuts: numbers of the units before
    which a cut is allowed if no sentence ends in reach (the starts of words), ascending; if none of them is in reach
    either, the cut is made before any unit. A passage ends before a sentence in the last half of its window, and the
    next one begins with the sentences that fit into the overlap.
    """
    sentences = sorted({bisect_left(units, match.end()) for match in SENTENCE_START.finditer(text)})
    spans: list[Span] = []
    begin = 0
    while begin + window < len(units):
        limit = begin + window
        end = _last(sentences, begin + window // 2, limit) or _last(cuts, begin + window // 2, limit) or limit
        spans.append((units[begin] if spans else 0, units[end]))
        begin = _first(sentences, end - overlap, end) or _first(cuts, end - overlap, end) or end
    spans.append((units[begin] if spans else 0, len(text)))
    return spans


def split_pieces(text: str, tokenizer: Tokenizer, window: int, overlap: int) -> list[Span]:
    """The passages of a text for a model with this tokenizer (without truncation): at most `window` word pieces each,
    not counting special tokens. Raises UnembeddableText for a text that is not valid Unicode.
    """
    # A word piece takes at least one byte of UTF-8: a Hangul syllable, of three bytes, may be three pieces.
    if len(encode_all([text])[0]) <= window:
        return [(0, len(text))]
    encoding = tokenizer.encode(text, add_special_tokens=False)
    if len(encoding.ids) <= window:
        return [(0, len(text))]
    words = encoding.word_ids
    # No cut within a word: its parts would make other pieces, perhaps more. A word has 100 pieces at most.
    cuts = [piece for piece in range(1, len(words)) if words[piece] != words[piece - 1]]
    return split(text, [start for start, _ in encoding.offsets], cuts, window, overlap)


def split_characters(text: str, window: int, overlap: int) -> list[Span]:
    """The passages of a text for a model whose word pieces are not known: at most `window` characters each."""
    if len(text) <= window:
        return [(0, len(text))]
    return split(text, range(len(text)), [match.start() for match in WORD_START.finditer(text)], window, overlap)


def _last(places: Sequence[int], above: int, up_to: int) -> int | None:
    at = bisect_right(places, up_to)
    return places[at - 1] if at and places[at - 1] > above else None


def _first(places: Sequence[int], at_least: int, below: int) -> int | None:
    at = bisect_left(places, at_least)
    return places[at] if at < len(places) and places[at] < below else None
