"""Reading records: a topic from its beginning or its end, to its end; and single records by their coordinates.

Without a group no position is kept anywhere, so no other reader is disturbed.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

POLL_MS = 200
POLL_RECORDS = 500
SILENCE_SECONDS = 9.0  # nothing came although there is more: Kafka has gone
FAR = 2_000  # records further than this are reached by a seek, not by reading up to them


def follow(
    consumer: KafkaConsumer,
    partitions: list[TopicPartition],
    *,
    limit: int | None,
    from_beginning: bool,
    patience: float,
) -> Iterator[ConsumerRecord]:
    """Records of these partitions: at most `limit`, until nothing more came for `patience` seconds at the end.

    Raises KafkaTimeoutError when Kafka stops answering before that.
    """
    consumer.assign(partitions)
    ends = consumer.end_offsets(partitions)
    starts = consumer.beginning_offsets(partitions) if from_beginning else ends
    for partition in partitions:
        consumer.seek(partition, starts[partition])
    yield from drain(consumer, ends, limit=limit, patience=patience)


def drain(
    consumer: KafkaConsumer,
    ends: dict[TopicPartition, int],
    *,
    limit: int | None,
    patience: float,
    commit: bool = False,
) -> Iterator[ConsumerRecord]:
    taken = 0
    quiet_since = time.monotonic()
    while limit is None or taken < limit:
        wanted = POLL_RECORDS if limit is None else min(POLL_RECORDS, limit - taken)
        polled = consumer.poll(timeout_ms=POLL_MS, max_records=wanted)
        for records in polled.values():
            yield from records
            taken += len(records)
        if polled:
            quiet_since = time.monotonic()
            if commit:
                consumer.commit(timeout_ms=5_000)
            continue
        quiet = time.monotonic() - quiet_since
        if all((consumer.position(partition, timeout_ms=1_000) or 0) >= end for partition, end in ends.items()):
            if quiet >= patience:
                return
        elif quiet > SILENCE_SECONDS:
            raise KafkaTimeoutError("the records that the topic holds did not come")


def at_offsets(consumer: KafkaConsumer, partition: TopicPartition, offsets: Iterable[int]) -> Iterator[ConsumerRecord]:
    """Those of the records at these offsets of a partition that the log still holds, in order."""
    begin = consumer.beginning_offsets([partition])[partition]
    end = consumer.end_offsets([partition])[partition]
    wanted = deque(sorted({offset for offset in offsets if begin <= offset < end}))
    if not wanted:
        return
    consumer.assign([partition])
    consumer.seek(partition, wanted[0])
    quiet_since = time.monotonic()
    while wanted:
        polled = consumer.poll(timeout_ms=POLL_MS, max_records=POLL_RECORDS)
        for record in polled.get(partition, []):
            while wanted and wanted[0] < record.offset:
                wanted.popleft()  # compacted away
            if wanted and wanted[0] == record.offset:
                wanted.popleft()
                yield record
        position = consumer.position(partition, timeout_ms=1_000) or 0
        while wanted and wanted[0] < position:
            wanted.popleft()  # not a record: a transaction's marker
        if polled:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > SILENCE_SECONDS:
            raise KafkaTimeoutError("the records that the topic holds did not come")
        if wanted and wanted[0] - position > FAR:
            consumer.seek(partition, wanted[0])
