"""What Kafka holds and how far a group has come: topics with their records, and the lag of a consumer group."""

from collections.abc import Sequence
from typing import NamedTuple

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.protocol.consumer import IsolationLevel, OffsetSpec


class Topic(NamedTuple):
    topic: str
    partitions: int
    records: int  # offsets between the first and the end: markers of transactions count too


class Lag(NamedTuple):
    """How far a group is behind in a partition; `committed` is None if it has not committed anything."""

    topic: str
    partition: int
    end: int
    committed: int | None
    lag: int


def topics(admin: KafkaAdminClient, *, internal: bool = False) -> list[Topic]:
    described = [topic for topic in admin.describe_topics() if internal or not topic["is_internal"]]
    partitions = {
        topic["name"]: [TopicPartition(topic["name"], found["partition_index"]) for found in topic["partitions"]]
        for topic in described
    }
    every = [partition for found in partitions.values() for partition in found]
    begins, ends = offsets(admin, every, OffsetSpec.EARLIEST), offsets(admin, every, OffsetSpec.LATEST)
    return [
        Topic(name, len(found), sum(ends[partition] - begins[partition] for partition in found))
        for name, found in sorted(partitions.items())
    ]


def lag(admin: KafkaAdminClient, group: str, partitions: Sequence[TopicPartition] | None = None) -> list[Lag]:
    """The lag in these partitions; None means all that the group has committed something for.

    If nothing is committed, all that the log holds is still to come. Records of open transactions do not count.
    """
    found = admin.list_group_offsets({group: None if partitions is None else list(partitions)})
    committed = {partition: place.offset for partition, place in found.get(group, {}).items() if place.offset >= 0}
    every = sorted(committed) if partitions is None else sorted(partitions)
    if not every:
        return []
    begins, ends = offsets(admin, every, OffsetSpec.EARLIEST), offsets(admin, every, OffsetSpec.LATEST)
    return [
        Lag(
            partition.topic,
            partition.partition,
            ends[partition],
            committed.get(partition),
            max(0, ends[partition] - max(committed.get(partition, 0), begins[partition])),
        )
        for partition in every
    ]


def offsets(
    admin: KafkaAdminClient, partitions: Sequence[TopicPartition], where: OffsetSpec
) -> dict[TopicPartition, int]:
    if not partitions:
        return {}
    asked = dict.fromkeys(partitions, where)
    found = admin.list_partition_offsets(asked, isolation_level=IsolationLevel.READ_COMMITTED)
    return {partition: place.offset for partition, place in found.items()}
