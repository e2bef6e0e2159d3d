"""Messages and vectors in PostgreSQL's binary COPY format, built by numpy many at once, about 20 times as fast as text.

Formats: https://www.postgresql.org/docs/18/sql-copy.html ("Binary Format"), and the types' receive functions:
timestamptz is microseconds since 2000, jsonb a version byte and text, halfvec int16 dimensions, int16 zero, and
big-endian half floats.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg2
from numpy.typing import NDArray

from records import Record

if TYPE_CHECKING:
    from db.embeddings import Vectors

HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
TRAILER = b"\xff\xff"
COLUMNS = 7
MESSAGE_COLUMNS = 8
VECTORS_AT_ONCE = 256

EPOCH_2000_MS = 946_684_800_000

# A half float has 10 bits of fraction instead of 23, and an exponent with a bias of 15 instead of 127.
BIAS = np.float32(2.0 ** (15 - 127))
HALF_INFINITE = np.float32(65_520)  # what is nearer to the next power of two than to the largest half
JSONB_VERSION = b"\x01"

# The fields of a message's row whose length is always the same lie in four pieces, between its texts. Each piece is one
# array for all rows, which costs a fifth of packing it row by row.
_LENGTH = np.dtype(">i4")
_BEGIN = np.dtype([("columns", ">i2"), ("id_bytes", ">i4"), ("id", "V16"), ("source_bytes", ">i4")])
_END = np.dtype(
    [
        ("created_bytes", ">i4"),
        ("created", ">i8"),
        ("timestamp_bytes", ">i4"),
        ("timestamp", ">i8"),
        ("partition_bytes", ">i4"),
        ("partition", ">i4"),
        ("offset_bytes", ">i4"),
        ("offset", ">i8"),
    ]
)
PIECES = 7  # of a row


def id_bytes(message_id: str) -> bytes:
    """The 16 bytes of a UUID in its usual form; several times as fast as uuid.UUID."""
    return bytes.fromhex(message_id.replace("-", ""))


def ids_array(message_ids: Iterable[str]) -> NDArray[np.void]:
    """The 16 bytes of each of these UUIDs, as an array of n. Raises ValueError for one in another form."""
    return np.frombuffer(bytes.fromhex("".join(message_ids).replace("-", "")), dtype="V16")


def message_rows(records: Sequence[Record], created: Sequence[int]) -> bytes:
    """Rows (id, source_id, message, metadata, created_at, version_timestamp, version_partition, version_offset) of n
    records with the ms at which each was created. Raises UnicodeEncodeError (a ValueError) and OverflowError."""
    ids, sources, messages, metadata, timestamps, partitions, offsets, _ = zip(*records, strict=True)
    count = len(records)
    pieces: list[bytes] = [b""] * (PIECES * count)
    source_bytes, pieces[1::PIECES] = encoded(sources)
    message_bytes, pieces[3::PIECES] = encoded(messages)
    metadata_bytes, pieces[5::PIECES] = encoded(metadata, JSONB_VERSION)
    begin = np.empty(count, dtype=_BEGIN)
    begin["columns"] = MESSAGE_COLUMNS
    begin["id_bytes"] = 16
    begin["id"] = ids_array(ids)
    begin["source_bytes"] = source_bytes
    end = np.empty(count, dtype=_END)
    end["created_bytes"] = end["timestamp_bytes"] = end["offset_bytes"] = 8
    end["partition_bytes"] = 4
    end["created"] = (np.array(created, dtype=np.int64) - EPOCH_2000_MS) * 1000
    end["timestamp"] = np.array(timestamps, dtype=np.int64)
    end["partition"] = np.array(partitions, dtype=np.int32)
    end["offset"] = np.array(offsets, dtype=np.int64)
    pieces[0::PIECES] = rows_of(begin)
    pieces[2::PIECES] = rows_of(message_bytes)
    pieces[4::PIECES] = rows_of(metadata_bytes)
    pieces[6::PIECES] = rows_of(end)
    return b"".join([HEADER, *pieces, TRAILER])


def encoded(texts: Sequence[str | None], before: bytes = b"") -> tuple[NDArray[np.int32], list[bytes]]:
    """The length of each text in bytes, -1 for NULL, and the bytes that stand for it in its row."""
    found = [b"" if text is None else before + text.encode() for text in texts]
    lengths = [-1 if text is None else len(each) for text, each in zip(texts, found, strict=True)]
    return np.array(lengths, dtype=_LENGTH), found


def rows_of(array: NDArray[Any]) -> list[bytes]:
    """The bytes of each element."""
    found: list[bytes] = array.view(f"V{array.itemsize}").tolist()
    return found


def vector_rows(vectors: "Vectors", model: str) -> Iterator[bytes]:
    """Rows (message_id, passage_number, passage_start, passage_end, content_hash, model, embedding) of all vectors.

    Every row has the same length, so many rows are one structured array; but not all at once, so that an array is
    written and read in the processor's cache.
    """
    count, dimensions = vectors.embeddings.shape
    name = model.encode()
    row = np.dtype(
        [
            ("columns", ">i2"),
            ("message_id_bytes", ">i4"),
            ("message_id", "V16"),
            ("number_bytes", ">i4"),
            ("number", ">i4"),
            ("start_bytes", ">i4"),
            ("start", ">i4"),
            ("end_bytes", ">i4"),
            ("end", ">i4"),
            ("hash_bytes", ">i4"),
            ("hash", "V16"),
            ("model_bytes", ">i4"),
            ("model", f"V{len(name)}"),
            ("embedding_bytes", ">i4"),
            ("dimensions", ">i2"),
            ("unused", ">i2"),
            ("embedding", ">u2", (dimensions,)),
        ]
    )
    rows = np.zeros(min(count, VECTORS_AT_ONCE), dtype=row)
    rows["columns"] = COLUMNS
    rows["message_id_bytes"] = rows["hash_bytes"] = 16
    rows["number_bytes"] = rows["start_bytes"] = rows["end_bytes"] = 4
    rows["model_bytes"] = len(name)
    rows["model"] = np.frombuffer(name, dtype=f"V{len(name)}")[0]
    rows["embedding_bytes"] = 4 + 2 * dimensions
    rows["dimensions"] = dimensions
    yield HEADER
    for first in range(0, count, VECTORS_AT_ONCE):
        part = slice(first, first + VECTORS_AT_ONCE)
        filled = rows[: min(VECTORS_AT_ONCE, count - first)]
        filled["message_id"] = np.frombuffer(b"".join(vectors.message_ids[part]), dtype="V16")
        filled["hash"] = np.frombuffer(b"".join(vectors.content_hashes[part]), dtype="V16")
        filled["number"] = vectors.numbers[part]
        filled["start"] = [start for start, _ in vectors.spans[part]]
        filled["end"] = [end for _, end in vectors.spans[part]]
        filled["embedding"] = halves(vectors.embeddings[part])
        yield filled.tobytes()
    yield TRAILER


def halves(floats: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The bits of the nearest half floats, ties to even: what astype(np.float16) gives, in a third of the time, since
    numpy converts them one by one. Below 2**-14 what is nearly a tie may be taken for one."""
    if not -HALF_INFINITE < floats.min(initial=0.0) <= floats.max(initial=0.0) < HALF_INFINITE:  # False for NaN too
        return floats.astype(np.float16).view(np.uint16)
    # Now the exponent is that of a half, and a number that is too small for a normal one is none either.
    bits = np.multiply(floats, BIAS, dtype=np.float32).view(np.uint32)
    bits += (bits >> 13 & 1) + 0xFFF
    bits >>= 13
    return (bits | bits >> 3 & 0x8000).astype(np.uint16)


class Stream:
    """What psycopg2 reads a COPY from. psycopg2 takes each piece whole, though it asks for 8 KB, with which two
    thousand vectors would take two hundred calls."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)
        self.error: Exception | None = None

    def read(self, _size: int = -1) -> bytes:
        try:
            return next(self.pieces, b"")
        except Exception as error:
            self.error = error
            raise


def copy_pieces(cursor: Any, statement: str, pieces: Iterable[bytes]) -> None:
    """COPY ... FROM STDIN of these pieces. Raises what making a piece raises, which psycopg2 would report as a
    cancelled query, and what the database says."""
    stream = Stream(pieces)
    try:
        cursor.copy_expert(statement, stream)
    except psycopg2.Error:
        if stream.error is not None:
            raise stream.error from None
        raise
