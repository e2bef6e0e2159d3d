"""What travels between the bridge, the tasks and the database: checked records and dead letters. Nothing but data, and
the rules for what others have put into them: numbers, times, words."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

# Why a record cannot be stored: each dead letter has exactly one of these.
REASONS = frozenset(
    {
        "invalid-json",
        "invalid-unicode",
        "nul-character",
        "not-an-object",
        "invalid-id",
        "missing-text",
        "invalid-text",
        "text-too-long",
        "invalid-metadata",
        "rejected",
    }
)


# What the table keeps of a dead letter, to be looked at and, where that is all of it, to be sent again. The topic and
# the log have the rest.
KEPT_BYTES = 65_536  # of its key, its value and each header
KEPT_HEADERS = 100
KEPT_CHARS = 500  # of a header's name, and of the detail

# Python reads no int of more than 4,300 digits (sys.set_int_max_str_digits), and needs long for the most that it takes.
INT_DIGITS = 4_000

# Timestamps outside of these years cannot be shown as a date.
FIRST_MS = -62_135_596_800_000  # 0001-01-01
LAST_MS = 253_402_300_799_000  # 9999-12-31

# Within a character class, what whoever shows a text would obey: DEL and the C1 controls, the separators of lines, the
# marks that turn the direction of writing round. What becomes of C0 controls and of halves of surrogate pairs depends
# on what is shown.
OBEYED = "\x7f-\x9f\u2028-\u202e\u2066-\u2069"


class Record(NamedTuple):
    """A checked record. `message` is None for a tombstone; `metadata` is JSON text; timestamp in ms since 1970.

    `replayed` is (topic, partition, offset) of the dead letter that this record is a second try of, else None. The
    order of the fields is the wire form of persist_text.
    """

    id: str
    source_id: str | None
    message: str | None
    metadata: str | None
    timestamp: int
    partition: int
    offset: int
    replayed: tuple[str, int, int] | None = None

    @property
    def version(self) -> tuple[int, int, int]:
        return (self.timestamp, self.partition, self.offset)


class DeadLetter(NamedTuple):
    """A record that could not be stored. Bytes are base64 text here, so that Celery's JSON can carry them.

    `value` may be cut, `value_bytes` is its whole length (None: there was no value); `headers` are [name, base64 or
    null] pairs. `again` says that it came as the replay of a dead letter and failed once more. The order of the fields
    is the wire form of record_dead_letters.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    reason: str
    detail: str
    key: str | None
    value: str | None
    value_bytes: int | None
    headers: list[tuple[str, str | None]]
    again: bool = False


def printable(text: str, most: int) -> str:
    """The text as any database and any header takes it: no NUL, no half surrogates, at most so many characters."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()[:most]


def whole_number(digits: str) -> int | Decimal:
    """A whole number of any length, every digit of it."""
    return int(digits) if len(digits) <= INT_DIGITS else Decimal(digits)


def iso_time(timestamp: int) -> str | None:
    """The ISO time in UTC of milliseconds since 1970; None for one that no calendar has, as a producer may set it."""
    try:
        return datetime.fromtimestamp(timestamp / 1000, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return None
