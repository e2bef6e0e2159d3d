"""Reading records: a topic from its beginning or its end, to its end; and single records by their coordinates.

Without a group no position is kept anywhere, so no other reader is disturbed.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CommitFailedError, KafkaTimeoutError, RebalanceInProgressError

import kafka_clients
from kafka_clients import member_poll_ms
from replay import record_batches
from settings import Settings

POLL_MS = 200
POLL_RECORDS = 500
SILENCE_SECONDS = 9.0  # if nothing comes for so long although there is more, Kafka has gone
FAR = 2_000  # what lies further away than this is reached by a seek, not by reading up to it

# How long Kafka waits for more where a fetch finds nothing new; its default is 500.
FETCH_WAIT_MS = 100

# What is still to be read of a partition: its number, from which offset, and up to which, which is not read.
Unread = tuple[int, int, int]


def reader(settings: Settings, **options: Any) -> KafkaConsumer:
    """A consumer that sees committed records only and commits nothing by itself; without a group, unless one is given.
    Raises KafkaError."""
    record_batches.install()
    given: dict[str, Any] = {
        "enable_auto_commit": False,
        "isolation_level": "read_committed",
        "auto_offset_reset": "earliest",
        "fetch_max_wait_ms": FETCH_WAIT_MS,
        **options,
    }
    return kafka_clients.connect(KafkaConsumer, settings, **given)


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
    """Records of the consumer's partitions: at most `limit`, until all have reached these ends and nothing more came
    for `patience` seconds. With `commit` what was taken is committed, and partitions that the group assigns meanwhile
    are read up to their end of that time. Raises KafkaTimeoutError when Kafka stops answering before the ends."""
    taken = 0
    assigned = consumer.assignment()
    quiet_since = time.monotonic()
    while limit is None or taken < limit:
        wanted = POLL_RECORDS if limit is None else min(POLL_RECORDS, limit - taken)
        polled = consumer.poll(timeout_ms=member_poll_ms(consumer, POLL_MS), max_records=wanted)
        for records in polled.values():
            yield from records
            taken += len(records)
        if polled:
            quiet_since = time.monotonic()
            if commit:
                commit_taken(consumer)
            continue
        if commit and assigned != consumer.assignment():  # another member came or went
            assigned = consumer.assignment()
            ends = consumer.end_offsets(list(assigned))
            quiet_since = time.monotonic()
        quiet = time.monotonic() - quiet_since
        if all((consumer.position(partition, timeout_ms=1_000) or 0) >= end for partition, end in ends.items()):
            if quiet >= patience:
                return
        elif quiet > SILENCE_SECONDS:
            raise KafkaTimeoutError("the records that the topic holds did not come")


def commit_taken(consumer: KafkaConsumer) -> None:
    """Commits what was taken, unless the group is reassigning its partitions: then those records come again."""
    with suppress(CommitFailedError, RebalanceInProgressError):
        consumer.commit(timeout_ms=5_000)


def at_offsets(consumer: KafkaConsumer, partition: TopicPartition, offsets: Iterable[int]) -> Iterator[ConsumerRecord]:
    """The records at these offsets of a partition that the log still holds, in order. Raises KafkaTimeoutError when
    Kafka stops answering before all have come."""
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


class Turn:
    """Some seconds of reading a topic, from its beginning to where it ended when the first turn began, or what the turn
    before has left `unread`. Afterwards `unread` is what this turn leaves."""

    def __init__(self, topic: str, unread: Sequence[Unread] | None, seconds: float) -> None:
        self.topic = topic
        self.given = unread
        self.seconds = seconds
        self.left: dict[TopicPartition, tuple[int, int]] = {}

    @property
    def unread(self) -> list[Unread]:
        return [(partition.partition, at, end) for partition, (at, end) in self.left.items() if at < end]

    def records(self, consumer: KafkaConsumer) -> Iterator[ConsumerRecord]:
        """At least one record, if there is one. Raises KafkaTimeoutError when Kafka stops answering."""
        self.left = self.stretches(consumer)
        if not self.left:
            return
        ends = {partition: end for partition, (_, end) in self.left.items()}
        consumer.assign(list(ends))
        for partition, (at, _) in self.left.items():
            consumer.seek(partition, at)
        until = time.monotonic() + self.seconds
        for record in drain(consumer, ends, limit=None, patience=0):
            partition = TopicPartition(record.topic, record.partition)
            self.left[partition] = (record.offset + 1, ends[partition])
            yield record
            if time.monotonic() >= until:
                return
        self.left = {}

    def stretches(self, consumer: KafkaConsumer) -> dict[TopicPartition, tuple[int, int]]:
        """What is to be read; no more than there is, if the topic was made again meanwhile."""
        numbers = consumer.partitions_for_topic(self.topic) or set()
        partitions = [TopicPartition(self.topic, number) for number in sorted(numbers)]
        begins, ends = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        wanted = {partition: (begins[partition], ends[partition]) for partition in partitions}
        if self.given is not None:
            given = {TopicPartition(self.topic, number): (at, end) for number, at, end in self.given}
            wanted = {
                partition: (max(at, begins[partition]), min(end, ends[partition]))
                for partition, (at, end) in given.items()
                if partition in wanted
            }
        return {partition: (at, end) for partition, (at, end) in wanted.items() if at < end}
