"""Dead letters and their second try: which ones, where their bytes still are, and what is sent for them.

The table says which there are; the log has their bytes. A second try carries the coordinates of the first coming in its
headers, so that the bridge keeps that version and the table's row is marked as replayed when it was stored.
"""

import base64
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord

import letter_headers
from letter_headers import Coordinates, Headers
from records import KEPT_BYTES, KEPT_CHARS, KEPT_HEADERS
from replay.reading import at_offsets, follow

# How the table writes a NUL and half a surrogate in a header's name; a name may also have come like this.
REWRITTEN = ("\\0", "\\ud")


class Letter(Coordinates):
    """A dead letter, by where it first came."""

    __slots__ = ()

    @property
    def name(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


class Original(NamedTuple):
    """The record that became a dead letter."""

    key: bytes | None
    value: bytes | None
    headers: Headers


NOTHING_TO_SEND = "it has neither key nor value: it can only be dropped"
GONE = "nothing has it whole any more: not its row, not the log, not its copies"


def refusal(state: str | None, topic: str, *, reads: str) -> str | None:
    """Why a dead letter of that topic cannot be sent again, or None. `state` is None if there is no such letter;
    `reads` is the topic that the bridge reads."""
    if state is None:
        return "there is no such dead letter"
    if state != "open":
        return f"it is {state} already"
    return None if topic == reads else f"the bridge reads {reads} (KAFKA_TOPIC)"


def first_found(
    letters: Iterable[Letter], sources: Iterable[Callable[[list[Letter]], Iterator[tuple[Letter, Original]]]]
) -> Iterator[tuple[Letter, Original]]:
    """Each letter with its record from the first source that has it. A source is asked only for what is still missing;
    letters that no source has are left out."""
    left = set(letters)
    for source in sources:
        if left:
            for letter, original in source(sorted(left)):
                left.discard(letter)
                yield letter, original


def from_rows(
    row_of: Callable[[Letter], dict[str, Any] | None], letters: Iterable[Letter]
) -> Iterator[tuple[Letter, Original]]:
    """The letters whose records their rows have whole."""
    for letter in letters:
        row = row_of(letter)
        original = whole(row) if row else None
        if original is not None:
            yield letter, original


def whole(row: dict[str, Any]) -> Original | None:
    """The original record from its row, or None if the table may have kept only a part of it."""
    key, value, headers = original = kept(row)
    parts = [part for part in (key, *(content for _, content in headers)) if part is not None]
    cut = (None if value is None else len(value)) != row["value_bytes"]
    if cut or len(headers) >= KEPT_HEADERS or any(len(part) >= KEPT_BYTES for part in parts):
        return None
    if any(may_be_changed(name) for name, _ in headers):
        return None
    return original


def kept(row: dict[str, Any]) -> Original:
    """What the table has kept of a record, which may be a part of it."""
    key, value = (None if row[name] is None else bytes(row[name]) for name in ("key", "value"))
    headers = [(str(name), None if content is None else base64.b64decode(content)) for name, content in row["headers"]]
    return Original(key, value, headers)


def may_be_changed(name: str) -> bool:
    """Whether a header's name may have come with characters other than the table's."""
    return len(name) >= KEPT_CHARS or any(mark in name for mark in REWRITTEN)


def from_log(consumer: KafkaConsumer, topic: str, letters: Iterable[Letter]) -> Iterator[tuple[Letter, Original]]:
    """The letters that the topic still holds; it may have been made again with fewer partitions."""
    known = consumer.partitions_for_topic(topic) or set()
    return originals(consumer, [letter for letter in letters if letter.partition in known])


def originals(consumer: KafkaConsumer, letters: Sequence[Letter]) -> Iterator[tuple[Letter, Original]]:
    """The letters that the log still holds, as they first came."""
    ordered = sorted(letters)
    for (topic, number), of_partition in groupby(ordered, key=lambda letter: (letter.topic, letter.partition)):
        wanted = {letter.offset: letter for letter in of_partition}
        for record in at_offsets(consumer, TopicPartition(topic, number), wanted):
            letter = wanted[record.offset]
            # Another timestamp means another record: the topic was deleted and made again.
            if record.timestamp == letter.timestamp:
                yield letter, Original(record.key, record.value, record.headers)


def copies(
    consumer: KafkaConsumer, partitions: list[TopicPartition], letters: Sequence[Letter]
) -> Iterator[tuple[Letter, Original]]:
    """The letters of which the dead-letter topic has a whole copy, each once."""
    return copies_among(follow(consumer, partitions, limit=None, from_beginning=True, patience=0), letters)


def copies_among(records: Iterable[ConsumerRecord], letters: Sequence[Letter]) -> Iterator[tuple[Letter, Original]]:
    """The letters of which one of these records of the dead-letter topic is a whole copy, each once."""
    wanted = set(letters)
    for record in records:
        letter = letter_of(record)
        if letter in wanted and not any(name == letter_headers.CUT for name, _ in record.headers):
            wanted.remove(letter)
            yield letter, copied(record)
        if not wanted:
            return


def copied(record: ConsumerRecord) -> Original:
    """The record of which this is a whole copy."""
    marks = dict(record.headers)
    value = None if letter_headers.NULL_VALUE in marks else record.value
    return Original(record.key, value, letter_headers.as_they_were(record.headers))


def letter_of(record: ConsumerRecord) -> Letter | None:
    """The coordinates in the headers of a record of the dead-letter topic."""
    found = letter_headers.named(record.headers)
    return None if found is None else Letter(*found)


def replay_headers(letter: Letter, original: Headers) -> list[tuple[str, bytes]]:
    """The headers of the second try: the sender's own, and where the letter first came."""
    return [*letter_headers.of_the_sender(original), *letter_headers.naming(letter)]
