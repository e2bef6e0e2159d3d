"""Batches of Kafka are read as kafka-python reads them itself, in less time; and with header names of any bytes."""

from collections.abc import Callable
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder
from kafka.record.util import calc_crc32c

from letter_headers import NotUtf8
from replay.record_batches import QuickPartitionRecords

PART = TopicPartition("texts", 3)
OWN = QuickPartitionRecords.__base__  # kafka-python's
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)

Headers = list[tuple[str, bytes | None]]
VALUES: list[tuple[bytes | None, bytes | None, Headers]] = [
    (None, b"{}", []),
    (b"key", b"x" * 63, []),
    (b"", b"", []),
    (b"k" * 64, b"y" * 64, [("name", b"value"), ("", b""), ("none", None)]),
    (b"tombstone", None, []),
    (b"k" * 10_000, b"z" * 70_000, [("n" * 300, b"v" * 9_000)]),
    (None, b"last", [(f"h{number}", b"x") for number in range(200)]),
]


class Aborted:
    """What the broker tells of a transaction that was aborted."""

    def __init__(self, producer_id: int, first_offset: int) -> None:
        self.producer_id = producer_id
        self.first_offset = first_offset


def a_batch(
    first: int = 0,
    *,
    codec: int = NONE,
    producer: int = -1,
    transactional: bool = False,
    values: list[tuple[bytes | None, bytes | None, Headers]] = VALUES,
    timestamp: int = 1_700_000_000_000,
) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, transactional, producer, 0, 0 if producer >= 0 else -1, 10_000_000)
    for place, (key, value, headers) in enumerate(values):
        builder.append(place, timestamp + place * 1_000 - 500, key, value, headers)
    built = bytearray(builder.build())
    built[0:8] = first.to_bytes(8, "big")  # the broker numbers it
    return built


def log_append_time(batch: bytearray) -> bytearray:
    """As the broker stamps it: one time for all of them."""
    batch[22] |= 0x08
    return with_checksum(batch)


def with_checksum(batch: bytearray) -> bytearray:
    batch[17:21] = calc_crc32c(memoryview(bytes(batch))[21:]).to_bytes(4, "big")
    return batch


def marker(first: int, producer: int) -> bytearray:
    """The control batch that ends an aborted transaction."""
    batch = a_batch(first, producer=producer, transactional=True, values=[(b"\0\0\0\0", b"\0\0\0\0\0\0", [])])
    batch[22] |= 0x20
    return with_checksum(batch)


def legacy(magic: int) -> bytes:
    builder = MemoryRecordsBuilder(magic=magic, compression_type=NONE, batch_size=1_000_000)
    for number in range(5):
        builder.append(timestamp=1_000 + number, key=b"k", value=b"v%d" % number)
    builder.close()
    return bytes(builder.buffer())


def reader(kind: Any, data: bytes, begin: int = 0, **options: Any) -> Any:
    return kind(begin, PART, MemoryRecords(data), **options)


def everything(kind: Any, data: bytes, begin: int = 0, at_once: int = 100, **options: Any) -> tuple[Any, ...]:
    """All records, where the next fetch begins, and how much was read."""
    found: list[ConsumerRecord] = []
    part = reader(kind, data, begin, **options)
    positions = []
    while part and (taken := part.take(at_once)):
        found += taken
        positions.append(part.next_fetch_offset)
    return found, positions, part.next_fetch_offset, part.leader_epoch, part.records_read


READ_COMMITTED = {"isolation_level": IsolationLevel.READ_COMMITTED}


@pytest.mark.parametrize(
    ("data", "options"),
    [
        *((lambda codec=codec: a_batch(7, codec=codec), {}) for codec in (NONE, GZIP, SNAPPY, LZ4, ZSTD)),
        (lambda: log_append_time(a_batch()), {}),
        (lambda: a_batch(timestamp=-5_000), {}),
        (lambda: a_batch(2**40) + a_batch(2**40 + 50, codec=LZ4), {}),
        (lambda: a_batch(1, producer=9) + a_batch(9, producer=8), READ_COMMITTED),
        (lambda: legacy(0), {}),
        (lambda: legacy(1), {}),
        (lambda: bytes(a_batch(0)) + legacy(1), {}),  # where the topic's format was lowered
        (lambda: b"", {}),
        (lambda: a_batch()[:-1], {}),  # a fetch ends where it ends, also within a batch
    ],
)
@pytest.mark.parametrize("at_once", [1, 3, 100])
def test_the_same_records_as_kafka_pythons_own(
    data: Callable[[], bytearray], options: dict[str, Any], at_once: int
) -> None:
    given = bytes(data())
    assert everything(QuickPartitionRecords, given, at_once=at_once, **options) == everything(
        OWN, given, at_once=at_once, **options
    )


@pytest.mark.parametrize("begin", [0, 3, 6])
def test_a_fetch_from_the_middle_of_a_batch_begins_there(begin: int) -> None:
    found, *_ = everything(QuickPartitionRecords, bytes(a_batch()), begin)
    assert [record.offset for record in found] == list(range(begin, 7))


def test_records_of_an_aborted_transaction_do_not_count() -> None:
    data = bytes(
        a_batch(0, producer=5, transactional=True)
        + a_batch(7, producer=6, transactional=True)
        + marker(14, 5)
        + a_batch(15, producer=5, transactional=True)
    )
    options = {**READ_COMMITTED, "aborted_transactions": [Aborted(5, 0)]}
    found, _, following, *_ = everything(QuickPartitionRecords, data, **options)
    assert [record.offset for record in found] == [*range(7, 14), *range(15, 22)]
    assert following == 22
    assert [record.offset for record in everything(OWN, data, **options)[0]] == [record.offset for record in found]


def test_the_next_fetch_begins_behind_what_was_compacted_away() -> None:
    batch = a_batch(10)
    batch[23:27] = (99).to_bytes(4, "big")  # last_offset_delta: the rest of a hundred is gone
    found, _, following, *_ = everything(QuickPartitionRecords, bytes(with_checksum(batch)))
    assert len(found) == 7
    assert following == 110


def test_a_header_name_of_any_bytes_is_read() -> None:
    batch = a_batch(values=[(b"k", b"v", [("name", b"1"), ("other", None)])])
    place = bytes(batch).index(b"name")
    batch[place : place + 4] = b"\xff\xfee\0"
    ((record,), *_) = everything(QuickPartitionRecords, bytes(with_checksum(batch)))
    assert record.headers == [("\\xff\\xfee\0", b"1"), ("other", None)]
    assert [isinstance(name, NotUtf8) for name, _ in record.headers] == [True, False]
    assert (record.key, record.value) == (b"k", b"v")


def test_a_damaged_batch_says_so() -> None:
    batch = a_batch()
    batch[-1] ^= 0x01
    with pytest.raises(CorruptRecordError, match="damaged"):
        everything(QuickPartitionRecords, bytes(batch))


ATTRIBUTES = (62, 72)  # of the first two records: a byte, which kafka-python takes for the beginning of a number


@pytest.mark.parametrize("place", sorted({*range(61, 75)} - {*ATTRIBUTES}))
@pytest.mark.parametrize("byte", [0x01, 0x7F, 0x80, 0xFE, 0xFF])
def test_a_batch_whose_checksum_lies_ends_in_records_or_in_one_error(place: int, byte: int) -> None:
    batch = a_batch(values=VALUES[:3])
    batch[place] = byte
    given = bytes(with_checksum(batch))
    try:
        expected = everything(OWN, given)
    except Exception:  # noqa: BLE001 - kafka-python's own may raise anything here
        with pytest.raises(CorruptRecordError):
            everything(QuickPartitionRecords, given)
    else:
        assert everything(QuickPartitionRecords, given)[0] == expected[0]
