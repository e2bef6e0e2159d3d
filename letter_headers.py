"""The headers that the pipeline gives to a record: to a dead letter in its topic, and to the second try of one.

Their names begin with PREFIX, so none of them is the sender's. Four say where the record first came, and of a second
try they are all: `dead-letter-topic` in UTF-8, and `-partition`, `-offset` and `-timestamp` (ms since 1970) in decimal.
"""

from collections.abc import Sequence
from typing import NamedTuple

Headers = Sequence[tuple[str, bytes | None]]

PREFIX = "dead-letter-"
TOPIC, PARTITION, OFFSET, TIMESTAMP = (f"{PREFIX}{name}" for name in ("topic", "partition", "offset", "timestamp"))
REASON, DETAIL = f"{PREFIX}reason", f"{PREFIX}detail"
CUT = f"{PREFIX}cut"  # what was left out of the copy, for the topic takes no larger one
# kafka-python sends no header without a value, nor a record with neither key nor value: they go empty, and are marked,
# the headers by their places among the sender's, from 0.
NULL_HEADERS, NULL_VALUE = f"{PREFIX}null-headers", f"{PREFIX}null-value"
RENAMED_HEADERS = f"{PREFIX}renamed-headers"  # the places of those whose names are given as text: see NotUtf8


class NotUtf8(str):
    """The name of a header in bytes that are not UTF-8, as kafka-python sends none: it has \\xff for such a byte."""

    __slots__ = ()


class Coordinates(NamedTuple):
    """Where in the log a record stands; timestamp in ms since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int

    @property
    def version(self) -> tuple[int, int, int]:
        return self.timestamp, self.partition, self.offset


def naming(first: Coordinates) -> list[tuple[str, bytes]]:
    """The headers that name where a record first came."""
    return [
        (TOPIC, first.topic.encode()),
        (PARTITION, str(first.partition).encode()),
        (OFFSET, str(first.offset).encode()),
        (TIMESTAMP, str(first.timestamp).encode()),
    ]


def named(headers: Headers) -> Coordinates | None:
    """Where a record first came, as its headers say: anybody may have made them up. None where they do not."""
    given = {name: value or b"" for name, value in headers if name.startswith(PREFIX)}
    try:
        return Coordinates(given[TOPIC].decode(), int(given[PARTITION]), int(given[OFFSET]), int(given[TIMESTAMP]))
    except (KeyError, ValueError):
        return None


def of_the_sender(headers: Headers) -> list[tuple[str, bytes]]:
    """The headers that are not the pipeline's, as kafka-python sends them: one without a value gets an empty one."""
    return [(name, value or b"") for name, value in headers if not name.startswith(PREFIX)]


def with_marks(headers: Headers) -> list[tuple[str, bytes]]:
    """As `of_the_sender`, with the marks that say which of them had no value, and which another name."""
    given = [(name, value) for name, value in headers if not name.startswith(PREFIX)]
    null = [str(place) for place, (_, value) in enumerate(given) if value is None]
    renamed = [str(place) for place, (name, _) in enumerate(given) if isinstance(name, NotUtf8)]
    marks = [(mark, ",".join(places).encode()) for mark, places in ((NULL_HEADERS, null), (RENAMED_HEADERS, renamed))]
    return [*of_the_sender(given), *((mark, places) for mark, places in marks if places)]


def as_they_were(headers: Headers) -> Headers:
    """The headers of a dead letter, where those of the sender that had no value have none again. Earlier releases
    marked them by their names."""
    mark = dict(headers).get(NULL_HEADERS)
    if not mark:
        return headers
    marked = mark.decode("utf-8", "replace").split(",")
    places = {int(place) for place in marked if place.isdecimal() and len(place) < 10}
    names = () if len(places) == len(marked) else marked
    restored: list[tuple[str, bytes | None]] = []
    place = 0
    for name, value in headers:
        is_null = not value and not name.startswith(PREFIX) and (name in names if names else place in places)
        restored.append((name, None if is_null else value))
        place += not name.startswith(PREFIX)
    return restored
