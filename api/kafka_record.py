"""One record of the log by its place, for a trace. Nothing is committed, and no other reader is disturbed."""

import threading
import time

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

from api.kafka_client import BLOCK_MS, REQUEST_MS
from replay import reading
from settings import Settings

ANSWER_SECONDS = 3.0
POLL_MS = 100
AT_ONCE = 4  # each has a connection of its own

_places = threading.BoundedSemaphore(AT_ONCE)


def read(settings: Settings, partition: int, offset: int) -> ConsumerRecord | None:
    """The record at this place of the topic, or None if the log holds none (any more, or yet).

    Raises KafkaError if Kafka is away, or if too many ask at a time.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    if not _places.acquire(timeout=ANSWER_SECONDS):
        raise KafkaTimeoutError("too many ask for a record at a time")
    try:
        consumer = reading.reader(
            settings,
            client_id="api-trace",
            bootstrap_timeout_ms=BLOCK_MS,
            request_timeout_ms=REQUEST_MS,
            metrics_enabled=False,
        )
        try:
            return find(consumer, TopicPartition(settings.kafka_topic, partition), offset, deadline)
        finally:
            consumer.close(timeout_ms=500)
    finally:
        _places.release()


def find(consumer: KafkaConsumer, place: TopicPartition, offset: int, deadline: float) -> ConsumerRecord | None:
    if place.partition not in (consumer.partitions_for_topic(place.topic) or set()):
        return None
    if not consumer.beginning_offsets([place])[place] <= offset < consumer.end_offsets([place])[place]:
        return None
    consumer.assign([place])
    consumer.seek(place, offset)
    while time.monotonic() < deadline:
        for record in consumer.poll(timeout_ms=POLL_MS, max_records=1).get(place, []):
            return record if record.offset == offset else None
        if (consumer.position(place, timeout_ms=1_000) or 0) > offset:
            return None  # not a record: a transaction's marker
    raise KafkaTimeoutError("Kafka did not give the record in time")
