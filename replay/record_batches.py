"""How kafka-python reads the record batches of this process: in one loop a batch, and with header names of any bytes.

kafka-python 3.0 makes two objects and some thirty calls for each record (record/default_records.py and
consumer/fetcher.py), which took as much of the bridge's time as all its other work. And Kafka's protocol calls a
header's name a string, but nobody checks that: over other bytes kafka-python raises in the middle of the batch, at the
same record for ever, which would stop its partition.

Format of a batch: https://kafka.apache.org/documentation/#recordbatch
"""

from collections.abc import Iterator
from typing import Any

from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord, Fetcher, IsolationLevel
from kafka.errors import CorruptRecordError
from kafka.record.default_records import DefaultRecordBatch
from kafka.record.memory_records import MemoryRecords
from kafka.record.util import decode_varint

from letter_headers import NotUtf8

Headers = list[tuple[str, bytes | None]]

MAGIC = 2  # of batches since Kafka 0.11; older ones are left to kafka-python
LONG_OR_NEGATIVE = 0x81  # bits of a number's first byte

_record = tuple.__new__


def install() -> None:
    """Makes every consumer of this process read batches like this."""
    Fetcher.PartitionRecords = QuickPartitionRecords


class QuickPartitionRecords(Fetcher.PartitionRecords):  # type: ignore[misc]
    """The records of one fetch of one partition, as kafka-python's own, except for the pace and the header names."""

    def _unpack_records(
        self, tp: TopicPartition, records: MemoryRecords, key_deserializer: Any, value_deserializer: Any
    ) -> Iterator[ConsumerRecord]:
        batch = records.next_batch()
        while batch is not None:
            if batch.magic != MAGIC or key_deserializer or value_deserializer:
                rest = PutBack(batch, records)
                yield from super()._unpack_records(tp, rest, key_deserializer, value_deserializer)
                return
            if self.check_crcs and not batch.validate_crc():
                raise CorruptRecordError(f"the batch of {tp.topic}/{tp.partition} at {batch.base_offset} is damaged")
            self.leader_epoch = batch.leader_epoch
            if not self.is_passed_over(batch):
                self.bytes_read += batch.size_in_bytes
                self.records_read += batch.records_count
                for record in batch_records(tp, batch):
                    self.next_fetch_offset = record[3] + 1
                    yield record
            # Compaction may have removed the last records of a batch: the next fetch begins behind them.
            self.next_fetch_offset = batch.next_offset
            batch = records.next_batch()
        self.drain()

    def is_passed_over(self, batch: DefaultRecordBatch) -> bool:
        """Whether no record of the batch counts: it is a transaction's marker, or of a transaction that was aborted."""
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return True
        return bool(batch.is_control_batch)


class PutBack:
    """What `MemoryRecords` still has, with the batch before it that was taken already."""

    def __init__(self, batch: Any, records: MemoryRecords) -> None:
        self.batch = batch
        self.records = records

    def next_batch(self) -> Any:
        batch, self.batch = self.batch, None
        return self.records.next_batch() if batch is None else batch


def batch_records(tp: TopicPartition, batch: DefaultRecordBatch) -> list[ConsumerRecord]:
    """All records of a batch. Raises CorruptRecordError."""
    batch._maybe_uncompress()
    data, at = bytes(batch._buffer), batch._pos
    topic, partition = tp
    epoch, base, kind = batch.leader_epoch, batch.base_offset, batch.timestamp_type
    first, step = (batch.max_timestamp, 0) if kind == batch.LOG_APPEND_TIME else (batch.first_timestamp, 1)
    found = []
    try:
        for _ in range(batch.records_count):
            length, at = number(data, at)
            end = at + length
            # Skips the attributes, of which there are none yet. Most numbers that follow take one byte, for which a
            # call would cost more than all the rest.
            at += 1
            delta, at = number(data, at) if data[at] & LONG_OR_NEGATIVE else (data[at] >> 1, at + 1)
            offset, at = number(data, at) if data[at] & LONG_OR_NEGATIVE else (data[at] >> 1, at + 1)
            key = value = None
            key_size, at = number(data, at)
            if key_size >= 0:
                key = data[at : at + key_size]
                at += key_size
            value_size, at = number(data, at)
            if value_size >= 0:
                value = data[at : at + value_size]
                at += value_size
            headers, at = read_headers(data, at) if data[at] else ([], at + 1)
            if at != end:
                raise ValueError(f"{at - end} bytes more than its length, {length}")
            header_size = sum(len(name.encode()) + len(given or b"") for name, given in headers) if headers else -1
            found.append(
                _record(
                    ConsumerRecord,
                    (
                        topic,
                        partition,
                        epoch,
                        base + offset,
                        first + step * delta,
                        kind,
                        key,
                        value,
                        headers,
                        None,  # only records of older formats have a checksum
                        key_size if key_size >= 0 else -1,
                        value_size if value_size >= 0 else -1,
                        header_size,
                    ),
                )
            )
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes behind its last record")
    except (ValueError, IndexError) as error:
        raise CorruptRecordError(f"the batch of {topic}/{partition} at {base}: {error}") from error
    return found


def number(data: bytes, at: int) -> tuple[int, int]:
    """The number at this place, and where it ends: as kafka-python reads it, but quick for short ones, as most are."""
    first = data[at]
    if first < 0x80:
        return (first >> 1) ^ -(first & 1), at + 1
    second = data[at + 1]
    if second < 0x80:
        first = first & 0x7F | second << 7
        return (first >> 1) ^ -(first & 1), at + 2
    found, at = decode_varint(data, at)
    return found, at


def read_headers(data: bytes, at: int) -> tuple[Headers, int]:
    """The headers of a record, and where they end. A name that is not UTF-8 is shown with \\xff for its bytes."""
    count, at = number(data, at)
    if count < 0:
        raise ValueError(f"{count} headers")
    headers: Headers = []
    for _ in range(count):
        size, at = number(data, at)
        if size < 0:
            raise ValueError(f"a header's name of {size} bytes")
        try:
            name = data[at : at + size].decode()
        except UnicodeDecodeError:
            name = NotUtf8(data[at : at + size].decode("utf-8", "backslashreplace"))
        at += size
        size, at = number(data, at)
        found = None
        if size >= 0:
            found = data[at : at + size]
            at += size
        headers.append((name, found))
    return headers, at
