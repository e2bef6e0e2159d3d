"""Reading the log and what is committed of it, through outages of Kafka. Nothing is written."""

import contextlib
import time
from collections.abc import Iterator

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import OffsetSpec
from kafka.consumer.fetcher import ConsumerRecord

from settings import Settings


def partitions(settings: Settings, topic: str | None = None) -> list[TopicPartition]:
    count = settings.kafka_topic_partitions if topic in (None, settings.kafka_topic) else 1
    return [TopicPartition(topic or settings.kafka_topic, number) for number in range(count)]


@contextlib.contextmanager
def asking(settings: Settings) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(
        **settings.kafka_client(), client_id="chaos", request_timeout_ms=5_000, bootstrap_timeout_ms=3_000
    )
    try:
        yield admin
    finally:
        admin.close()


def committed(settings: Settings, admin: KafkaAdminClient) -> dict[int, int]:
    """The next offset to be read of each partition that has a commit."""
    answer = admin.list_group_offsets({settings.kafka_group_id: partitions(settings)})
    found = answer.get(settings.kafka_group_id, {})
    return {part.partition: each.offset for part, each in found.items() if each.offset >= 0}


def ends(settings: Settings, admin: KafkaAdminClient, topic: str | None = None) -> dict[int, int]:
    latest = dict.fromkeys(partitions(settings, topic), OffsetSpec.LATEST)
    answer = admin.list_partition_offsets(latest, isolation_level="read_committed")
    return {part.partition: each.offset for part, each in answer.items()}


def lag(settings: Settings) -> int:
    """Records between the commits and the end of the log."""
    with asking(settings) as admin:
        done = committed(settings, admin)
        return sum(end - done.get(partition, 0) for partition, end in ends(settings, admin).items())


def connect(settings: Settings, topic: str | None = None) -> KafkaConsumer:
    """A consumer without a group, at the beginning of the topic."""
    consumer = KafkaConsumer(
        **settings.kafka_client(),
        group_id=None,
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        max_poll_records=5_000,
        request_timeout_ms=10_000,
        reconnect_backoff_max_ms=500,
    )
    consumer.assign(partitions(settings, topic))
    consumer.seek_to_beginning()
    return consumer


def read_log(settings: Settings, topic: str | None = None, timeout: float = 120) -> list[ConsumerRecord]:
    """All records of a topic, from its beginning to the end that it has now."""
    with asking(settings) as admin:
        until = ends(settings, admin, topic)
    records: list[ConsumerRecord] = []
    deadline = time.monotonic() + timeout
    with contextlib.closing(connect(settings, topic)) as consumer:
        while any(consumer.position(part) < until[part.partition] for part in consumer.assignment()):
            assert time.monotonic() < deadline, f"could not read {topic or settings.kafka_topic} to its end: {until}"
            for batch in consumer.poll(timeout_ms=500).values():
                records += batch
    return records
