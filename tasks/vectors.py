"""Vectors for texts: passages, portions that keep memory bounded, halving down to the one text that cannot be embedded,
and vectors that were made before. Knows no job and writes nothing."""

import logging
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from celery.exceptions import SoftTimeLimitExceeded
from numpy.typing import NDArray

import settings
from db import embeddings, reuse
from db.content_hashes import content_hash
from db.copy import ids_array
from db.embeddings import Embedded, Vectors
from db.outbox import Left
from db.reuse import PassageVector
from embedder import Embedder, EmbedderUnavailable, ModelError, UnembeddableText
from embedder.protocol import Span
from portions import portions
from tasks import resources

log = logging.getLogger(__name__)

# About 8,000 word pieces of English, or up to 30,000 of Chinese: half a second to three of the default model on one
# core.
PORTION_CHARS = 30_000

LONGEST_PAUSE_SECONDS = 600.0  # whatever a provider asks for

# What ends the try of a text that may be as good as any other. Several texts are halved where memory is too small for
# all of them.
CUT_SHORT = (SoftTimeLimitExceeded, MemoryError)


class Passages:
    """Passages as parallel columns: the content hash of the text (which several messages may share), the passage's
    number within it, its span of characters, and its own text. `arrays` are (n, dimensions) vectors, those of the first
    passages first; the rest have none yet."""

    def __init__(self) -> None:
        self.hashes: list[bytes] = []
        self.numbers: list[int] = []
        self.spans: list[Span] = []
        self.texts: list[str] = []
        self.arrays: list[NDArray[np.float32]] = []

    @property
    def made(self) -> int:
        """How many of them, the first ones, have a vector."""
        return sum(map(len, self.arrays))

    def add(self, digest: bytes, number: int, span: Span, text: str) -> None:
        self.hashes.append(digest)
        self.numbers.append(number)
        self.spans.append(span)
        self.texts.append(text)

    def vectors(self, messages: Mapping[bytes, list[str]], without: Collection[bytes]) -> Vectors:
        """What has been made for each text, for each message that has it; nothing for the texts `without`."""
        done = self.made
        hashes, numbers, spans = self.hashes[:done], self.numbers[:done], self.spans[:done]
        places: Sequence[int] = range(done)
        if without:
            places = [place for place in places if hashes[place] not in without]
        ids = [message_id for place in places for message_id in messages[hashes[place]]]
        if not ids:
            return embeddings.NO_VECTORS
        matrix = self.arrays[0] if len(self.arrays) == 1 else np.concatenate(self.arrays)
        if without or len(ids) != done:
            places = [place for place in places for _ in messages[hashes[place]]]
            hashes = [hashes[place] for place in places]
            numbers = [numbers[place] for place in places]
            spans = [spans[place] for place in places]
            matrix = matrix[places]
        return Vectors(ids_array(ids).tolist(), hashes, numbers, spans, matrix)


def embed(embedder: Embedder, texts: Mapping[str, str]) -> Embedded:
    """The vectors of all passages of these texts, by message id; a text that was embedded before is not embedded again.
    Of a typed text that is longer than MAX_TEXT_CHARS, the most of a record, only the beginning is embedded: a thousand
    passages would keep everybody else's waiting.

    What was made before a provider goes away is kept. Raises EmbedderUnavailable if that is nothing, ModelError, and
    what has CUT_SHORT the work at one text.
    """
    messages: dict[bytes, list[str]] = {}
    for message_id, text in texts.items():
        messages.setdefault(content_hash(text), []).append(message_id)
    passages = Passages()
    made_before = vectors_made_before(embedder, messages)
    for digest, before in made_before.items():
        for row in before:
            passages.add(digest, row.number, row.span, "")
        passages.arrays.append(np.stack([row.vector for row in before]))
    new = ((digest, texts[ids[0]]) for digest, ids in messages.items() if digest not in made_before)
    failed = add_passages(embedder, passages, new)
    refused, left, away = add_vectors(embedder, passages)
    failed |= refused
    seconds = 0.0
    if away is not None:
        if left == messages.keys():
            raise away
        log.warning("embedder unavailable, %d texts wait: %s", len(left), away)
        seconds = seconds_to_wait(away)
    return Embedded(
        passages.vectors(messages, left | failed.keys()),
        [
            (message_id, str(uuid.UUID(bytes=digest)), why)
            for digest, why in failed.items()
            for message_id in messages[digest]
        ],
        Left(frozenset(message_id for digest in left for message_id in messages[digest]), seconds),
    )


def add_passages(embedder: Embedder, passages: Passages, new: Iterable[tuple[bytes, str]]) -> dict[bytes, str]:
    """Adds the passages of these texts, which come with their hashes. Returns why texts have none, by hash."""
    most = settings.load().max_text_chars
    failed: dict[bytes, str] = {}
    for digest, text in new:
        try:
            spans = embedder.passages(text[:most])
        except (EmbedderUnavailable, ModelError, *CUT_SHORT):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a text makes the tokenizer raise must not sink its neighbours
            failed[digest] = f"{type(error).__name__}: {error}"
            continue
        for number, (start, end) in enumerate(spans):
            passages.add(digest, number, (start, end), text[start:end])
    return failed


def add_vectors(
    embedder: Embedder, passages: Passages
) -> tuple[dict[bytes, str], set[bytes], EmbedderUnavailable | None]:
    """Adds the vectors of the passages that have none. Returns why texts can have none, by hash, and where the provider
    goes away, the hashes of the texts that are left, and what it said."""
    known = passages.made
    failed: dict[bytes, str] = {}
    lengths = [len(text) for text in passages.texts[known:]]
    limits = [(lengths, PORTION_CHARS)]
    if embedder.batch_max is not None:
        limits.append(([1] * len(lengths), embedder.batch_max))
    for portion in portions(*limits):
        done, end = known + portion.start, known + portion.stop
        made = vectors_and_reasons(embedder, passages.texts[done:end])
        failed |= {passages.hashes[done + place]: why for place, why in made.reasons.items()}
        passages.arrays.append(made.vectors)
        if made.away is not None:
            left = {*(passages.hashes[done + place] for place in made.left), *passages.hashes[end:]}
            return failed, left - failed.keys(), made.away
    return failed, set(), None


def vectors_made_before(embedder: Embedder, digests: Collection[bytes]) -> dict[bytes, list[PassageVector]]:
    if not embedder.worth_keeping:
        return {}
    with resources.engine().begin() as connection:
        return reuse.vectors_of(connection, embedder.model, digests)


def seconds_to_wait(error: EmbedderUnavailable) -> float:
    return min(error.retry_after or 1.0, LONGEST_PAUSE_SECONDS)


class Made(NamedTuple):
    """What came of n texts: (n, dimensions) vectors, and by place the reason of each that can have none. If the
    provider went `away`, the places of those that are `left`. The rows of both mean nothing."""

    vectors: NDArray[np.float32]
    reasons: dict[int, str]
    away: EmbedderUnavailable | None = None
    left: Sequence[int] = ()


def vectors_and_reasons(embedder: Embedder, texts: Sequence[str], *, one_is_told: bool = True) -> Made:
    """The vectors of texts. A text that cannot be embedded is left out. If the provider names it, it is skipped at
    once, since it may have taken many requests to find; any other exception is narrowed down by halving. From the
    second named text on what follows is halved as well, so that many bad texts need few calls. An outage keeps what
    was made and found until then: under a limit of requests each try gets further.

    Raises ModelError, and what has CUT_SHORT the work at one text."""
    count = len(texts)
    if not texts:
        return Made(np.zeros((0, embedder.dimensions), dtype=np.float32), {})
    try:
        vectors = embedder.embed(texts)
    except (ModelError, SoftTimeLimitExceeded):
        raise
    except EmbedderUnavailable as error:
        return Made(np.zeros((count, embedder.dimensions), dtype=np.float32), {}, error, range(count))
    except Exception as error:  # whatever a text makes the model's libraries raise must not sink its neighbours
        if isinstance(error, UnembeddableText):
            place = error.index
        elif count == 1 and isinstance(error, MemoryError):
            raise
        elif count == 1:
            place = 0
        else:
            return in_parts(embedder, texts, range(count // 2), range(count // 2, count))
        middle = place + 1 if one_is_told else (place + 1 + count) // 2
        made = in_parts(embedder, texts, range(place), range(place + 1, middle), range(middle, count))
        return made._replace(reasons=made.reasons | {place: f"{type(error).__name__}: {error}"})
    if np.isfinite(vectors).all():
        return Made(vectors, {})
    odd = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    return Made(vectors, {int(place): "the model gave numbers that are not finite" for place in odd})


def in_parts(embedder: Embedder, texts: Sequence[str], *parts: range) -> Made:
    """As `vectors_and_reasons`, of the texts at these places, part by part; the rows of others are zero."""
    vectors = np.zeros((len(texts), embedder.dimensions), dtype=np.float32)
    reasons: dict[int, str] = {}
    away: EmbedderUnavailable | None = None
    left: list[int] = []
    for part in parts:
        if away is not None:
            left += part
            continue
        made = vectors_and_reasons(embedder, texts[part.start : part.stop], one_is_told=False)
        vectors[part.start : part.stop] = made.vectors
        reasons |= {part[place]: why for place, why in made.reasons.items()}
        away = made.away
        left += [part[place] for place in made.left]
    return Made(vectors, reasons, away, left)
