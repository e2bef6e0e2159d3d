"""The provider without a model, for tests and for measuring everything but the model: words hashed into dimensions.

Deterministic on every machine. Texts that share words are near each other; it knows nothing of meanings.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from embedder.passages import split_characters
from embedder.protocol import encode_all
from portions import portions

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from embedder.protocol import Span, Vectors

WINDOW_CHARS = 1000
OVERLAP_CHARS = 100

# Two words that meet in one of their dimensions still differ in the other three.
DIMENSIONS_PER_WORD = 4

# Hashed in one step: few enough that its arrays, of 8 bytes for each byte of text, stay in the processor's cache.
STEP_BYTES = 16_384

# Odd, so that it has an inverse modulo 2**64: the golden ratio, whose powers are spread well.
BASE = 0x9E3779B97F4A7C15
BASE_INVERSE = pow(BASE, -1, 2**64)

# ASCII letters, digits, _ and all bytes of other characters make words; the rest separates them and counts as nothing.
WORD_BYTES = [byte for byte in range(256) if byte >= 128 or chr(byte).isalnum() or chr(byte) == "_"]
BYTE_VALUES = np.zeros(256, dtype=np.uint64)
BYTE_VALUES[WORD_BYTES] = [(byte + 1) * 0xBF58476D1CE4E5B9 % 2**64 for byte in WORD_BYTES]


class HashingEmbedder:
    """Each word adds +1 or -1 to four dimensions that its hash chooses; about 2 microseconds for a short text.

    `microseconds` is the least processor time that it takes for each text, to stand in for a model of that pace.
    """

    model = "hashing-384"
    dimensions = 384
    worth_keeping = False
    batch_max: int | None = None

    def __init__(self, microseconds: float = 0.0) -> None:
        self.seconds = microseconds / 1_000_000

    def passages(self, text: str) -> list[Span]:
        return split_characters(text, WINDOW_CHARS, OVERLAP_CHARS)

    def embed(self, texts: Sequence[str]) -> Vectors:
        until = time.thread_time() + self.seconds * len(texts)
        encoded = encode_all([text.lower() for text in texts])
        vectors = np.empty((len(texts), self.dimensions), dtype=np.float32)
        for step in portions(([len(text) + 1 for text in encoded], STEP_BYTES)):
            vectors[step] = hashed(encoded[step], self.dimensions)
        while self.seconds and time.thread_time() < until:
            pass
        return vectors


def hashed(texts: Sequence[bytes], dimensions: int) -> Vectors:
    """One vector of length 1 for each text."""
    starts, hashes = words(np.frombuffer(b" ".join(texts) + b" ", dtype=np.uint8))
    ends = np.cumsum([len(text) + 1 for text in texts])
    words_of_text = np.diff(np.searchsorted(starts, ends), prepend=0)
    # Four times 16 bits: one for the sign, 15 for the dimension.
    quarters = hashes.astype("<u8").view("<u2").reshape(-1, DIMENSIONS_PER_WORD).astype(np.int64)
    places = ((quarters >> 1) * dimensions >> 15) + np.repeat(np.arange(len(texts)) * dimensions, words_of_text)[
        :, None
    ]
    signs = 1.0 - 2.0 * (quarters & 1)
    sums = np.bincount(places.ravel(), signs.ravel(), len(texts) * dimensions)
    vectors = sums.astype(np.float32).reshape(len(texts), dimensions)
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    for row in np.flatnonzero(lengths == 0).tolist():  # no word at all, or one whose signs cancel
        vectors[row, zlib.crc32(texts[row]) % dimensions] = lengths[row] = 1.0
    vectors /= lengths[:, None]
    return vectors


def words(joined: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Where each word starts, and its hash, which is the same wherever it stands. No word spans two texts."""
    values = BYTE_VALUES[joined]
    in_word = np.concatenate(([False], values != 0))
    starts = np.flatnonzero(in_word[1:] > in_word[:-1])
    if not len(starts):
        return starts, np.zeros(0, dtype=np.uint64)
    # A word's bytes are the coefficients of a polynomial; dividing by the power at which it starts takes its place out.
    hashes = np.add.reduceat(values * powers(BASE, len(joined)), starts) * powers(BASE_INVERSE, len(joined))[starts]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(29)
    return starts, hashes


_powers: dict[int, NDArray[np.uint64]] = {}


def powers(base: int, count: int) -> NDArray[np.uint64]:
    """1, base, base², ...: `count` of them, modulo 2**64."""
    known = _powers.get(base)
    if known is None or len(known) < count:
        factors = np.full(max(count, 2 * STEP_BYTES), base, dtype=np.uint64)
        factors[0] = 1
        known = _powers[base] = np.cumprod(factors)
    return known[:count]
