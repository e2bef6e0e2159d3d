"""Dead letters on their way out: the record, its bytes unchanged, for their topic, and its note for their table.

The topic is for any tool; after a crash it may hold a second copy with the same coordinates. The table holds each once.
"""

import base64
from collections.abc import Sequence
from typing import Any

from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.producer.future import FutureRecordMetadata

import kafka_clients
import letter_headers
from bridge.message import BadRecord, first_coming
from letter_headers import Coordinates
from records import KEPT_BYTES, KEPT_CHARS, KEPT_HEADERS, DeadLetter, printable
from settings import Settings

# Less some room for the batch around the record: 1,000,000, as docs/operations.md has it.
RECORD_BYTES = kafka_clients.BROKER_MAX_BYTES - 48_588
LEAST_BYTES = 1_000  # a smaller copy would hold little besides the bridge's own headers


def connect_producer(settings: Settings) -> KafkaProducer:
    """A producer that keeps trying for a minute, and whose waits are all bounded."""
    return kafka_clients.connect(
        KafkaProducer,
        settings,
        client_id="bridge-dead-letters",
        acks="all",
        linger_ms=5,
        max_block_ms=5_000,
        request_timeout_ms=10_000,
        delivery_timeout_ms=60_000,
        max_request_size=RECORD_BYTES + 40_000,
        reconnect_backoff_max_ms=1_000,
        metrics_enabled=False,
    )


def coordinates(record: ConsumerRecord) -> Coordinates:
    return Coordinates(record.topic, record.partition, record.offset, record.timestamp)


def note(record: ConsumerRecord, reason: str, detail: str) -> DeadLetter:
    """The row of the table for a record, under the coordinates at which it first came."""
    at = coordinates(record)
    first = first_coming(at, record.headers)
    return DeadLetter(
        first.topic,
        first.partition,
        first.offset,
        first.timestamp,
        reason,
        printable(detail, KEPT_CHARS),
        encode(record.key),
        encode(record.value),
        None if record.value is None else len(record.value),
        [(printable(name, KEPT_CHARS), encode(value)) for name, value in record.headers][:KEPT_HEADERS],
        first is not at,
    )


def encode(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value[:KEPT_BYTES]).decode("ascii")


def send(
    producer: KafkaProducer, topic: str, record: ConsumerRecord, error: BadRecord, most: int = RECORD_BYTES
) -> FutureRecordMetadata:
    """Sends a record, cut to `most` bytes, to the dead-letter topic; the future says when it has arrived. Raises
    KafkaError."""
    first = first_coming(coordinates(record), record.headers)
    headers = letter_headers.with_marks(record.headers)
    if record.key is None and record.value is None:
        headers.append((letter_headers.NULL_VALUE, b"1"))
    headers += [
        (letter_headers.REASON, error.reason.encode()),
        (letter_headers.DETAIL, printable(error.detail, KEPT_CHARS).encode()),
        *letter_headers.naming(first),
    ]
    value = b"" if record.key is None and record.value is None else record.value
    key, value, headers = fit(record.key, value, headers, most)
    kafka_clients.begin_anew(producer)
    sent: FutureRecordMetadata = producer.send(topic, value=value, key=key, headers=headers)
    return sent


def fit(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, Any]], most: int
) -> tuple[bytes | None, bytes | None, Any]:
    """Cuts a record that has more than `most` bytes, and says so in a header; the log has the original. With 0, only
    the bridge's own headers are left."""
    own = [header for header in headers if header[0].startswith(letter_headers.PREFIX)]
    header_bytes = sizes(headers)
    if size(key) + size(value) + header_bytes <= most:
        return key, value, headers
    cut = (
        letter_headers.CUT,
        f"key {size(key)} bytes, value {size(value)} bytes, {len(headers) - len(own)} headers".encode(),
    )
    if header_bytes > most // 4:
        marks = (letter_headers.NULL_HEADERS, letter_headers.RENAMED_HEADERS)
        headers = own = [header for header in own if header[0] not in marks]
        header_bytes = sizes(own)
    if size(key) > most // 4:
        key = (key or b"")[: most // 4]
    room = max(0, most - header_bytes - size(key) - 200)
    return key, None if value is None else value[:room], [*headers, cut]


def less(record: ConsumerRecord, most: int) -> int:
    """How many bytes to send next of a record that was too large when cut to `most`: half as many, in the end 0."""
    half = min(most, size(record.key) + size(record.value) + sizes(record.headers)) // 2
    return half if half >= LEAST_BYTES else 0


def size(part: bytes | None) -> int:
    return len(part or b"")


def sizes(headers: Sequence[tuple[str, Any]]) -> int:
    return sum(len(name.encode()) + size(content) + 10 for name, content in headers)
