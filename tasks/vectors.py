"""Vectors for texts: passages, portions that keep memory bounded, halving down to the one text that cannot be embedded,
and vectors that were made before. Knows no job and writes nothing."""

import hashlib
import logging
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from db import outbox, reuse
from db.copy import ids_array
from db.outbox import Left, Vectors
from db.reuse import PassageVector
from embedder import Embedder, EmbedderUnavailable, ModelError, UnembeddableText
from tasks import resources

log = logging.getLogger(__name__)

# About 8,000 word pieces of English, or up to 30,000 of Chinese: half a second to three of the default model on one
# core.
PORTION_CHARS = 30_000

LONGEST_PAUSE_SECONDS = 600.0  # whatever a provider asks for


class Passage(NamedTuple):
    """A part of a text, which is known by its content hash: several messages may have the same text."""

    content_hash: bytes
    number: int
    start: int
    end: int
    text: str


class Embedded(NamedTuple):
    """Vectors; (message id, content hash, reason) of each message that can have none; and what could not be tried."""

    vectors: Vectors
    failures: list[tuple[str, str, str]]
    left: Left


def content_hash(text: str) -> bytes:
    """The 16 bytes that PostgreSQL's md5(message)::uuid gives for a text: it tells texts apart, and protects
    nothing."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


class Made:
    """Vectors as they come, the (n, dimensions) arrays of each portion, and the passage of each of their rows."""

    def __init__(self) -> None:
        self.arrays: list[NDArray[np.float32]] = []
        self.passages: list[Passage] = []

    def add(self, passages: Sequence[Passage], vectors: NDArray[np.float32]) -> None:
        """One vector for each passage."""
        self.passages += passages
        self.arrays.append(vectors)

    def for_messages(self, messages: Mapping[bytes, list[str]], without: Collection[bytes]) -> Vectors:
        """The rows of each text for each message that has it."""
        every = [
            (message_id, passage, place)
            for place, passage in enumerate(self.passages)
            if passage.content_hash not in without
            for message_id in messages[passage.content_hash]
        ]
        if not every:
            return outbox.no_vectors()
        matrix = self.arrays[0] if len(self.arrays) == 1 else np.concatenate(self.arrays)
        if len(every) != len(matrix) or without:
            matrix = matrix[[place for _, _, place in every]]
        return Vectors(
            ids_array(message_id for message_id, _, _ in every).tolist(),
            [passage.content_hash for _, passage, _ in every],
            [passage.number for _, passage, _ in every],
            [(passage.start, passage.end) for _, passage, _ in every],
            matrix,
        )


def embed(embedder: Embedder, texts: Mapping[str, str]) -> Embedded:
    """The vectors of all passages of these texts, by message id; a text that was embedded before is not embedded again.

    A provider that goes away half way keeps what it has done. Raises EmbedderUnavailable when that is nothing, and
    ModelError.
    """
    messages: dict[bytes, list[str]] = {}
    for message_id, text in texts.items():
        messages.setdefault(content_hash(text), []).append(message_id)
    made = Made()
    made_before = vectors_made_before(embedder, messages)
    for digest, before in made_before.items():
        made.add(
            [Passage(digest, row.number, *row.span, "") for row in before], np.stack([row.vector for row in before])
        )
    passages: list[Passage] = []
    failed: dict[bytes, str] = {}
    for digest, (message_id, *_) in messages.items():
        if digest in made_before:
            continue
        try:
            passages += passages_of(embedder, digest, texts[message_id])
        except (EmbedderUnavailable, ModelError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a text makes the tokenizer raise must not sink its neighbours
            failed[digest] = f"{type(error).__name__}: {error}"
    done = 0
    left: set[bytes] = set()
    seconds = 0.0
    for part in portions(passages):
        try:
            vectors, reasons = vectors_and_reasons(embedder, [passage.text for passage in part])
        except EmbedderUnavailable as error:
            left = {passage.content_hash for passage in passages[done:]}
            if left == messages.keys() - failed.keys():
                raise
            log.warning("embedder unavailable, %d texts wait: %s", len(left), error)
            seconds = pause(error)
            break
        done += len(part)
        made.add(part, vectors)
        failed |= {part[place].content_hash: why for place, why in reasons.items()}
    return Embedded(
        made.for_messages(messages, left | failed.keys()),
        [
            (message_id, str(uuid.UUID(bytes=digest)), why)
            for digest, why in failed.items()
            if digest not in left
            for message_id in messages[digest]
        ],
        Left(frozenset(message_id for digest in left for message_id in messages[digest]), seconds),
    )


def vectors_made_before(embedder: Embedder, digests: Collection[bytes]) -> dict[bytes, list[PassageVector]]:
    if not embedder.worth_keeping:
        return {}
    with resources.engine().begin() as connection:
        return reuse.vectors_of(connection, embedder.model, digests)


def passages_of(embedder: Embedder, digest: bytes, text: str) -> list[Passage]:
    return [
        Passage(digest, number, start, end, text[start:end])
        for number, (start, end) in enumerate(embedder.passages(text))
    ]


def pause(error: EmbedderUnavailable) -> float:
    return min(error.retry_after or 1.0, LONGEST_PAUSE_SECONDS)


def portions(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    """Cuts the work so that a portion takes a second or two, and memory stays bounded."""
    first = size = 0
    for place, passage in enumerate(passages):
        if size and size + len(passage.text) > PORTION_CHARS:
            yield passages[first:place]
            first, size = place, 0
        size += len(passage.text)
    if passages:
        yield passages[first:]


def vectors_and_reasons(embedder: Embedder, texts: Sequence[str]) -> tuple[NDArray[np.float32], dict[int, str]]:
    """The (n, dimensions) vectors of n texts; and of each text that can have none, by its place, the reason, found by
    halving (its row is of no account). Raises for outages only."""
    try:
        vectors = embedder.embed(texts)
        if not np.isfinite(vectors).all():
            raise UnembeddableText("the model gave numbers that are not finite")
        return vectors, {}
    except (EmbedderUnavailable, ModelError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a text makes the model's libraries raise must not sink its neighbours
        if len(texts) == 1:
            nothing = np.zeros((1, embedder.dimensions), dtype=np.float32)
            return nothing, {0: f"{type(error).__name__}: {error}"}
    middle = len(texts) // 2
    first, reasons = vectors_and_reasons(embedder, texts[:middle])
    second, more = vectors_and_reasons(embedder, texts[middle:])
    return np.concatenate([first, second]), reasons | {middle + place: why for place, why in more.items()}
