"""Connections to Kafka for the commands: every wait ends within 10 s, and every error is one line."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import (
    BrokerResponseError,
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    RetriableError,
    UnknownTopicOrPartitionError,
)

import kafka_clients
from clients.partitioner import KeyPartitioner
from clients.terminal import CommandFailed, Unreachable
from replay import reading
from settings import Settings

ANSWER_MS = 6_000

# A batch of this size and this wait for it to fill doubled the records a second, against 16 KiB and none.
BATCH_BYTES = 262_144
LINGER_MS = 20


class NoSuchTopic(CommandFailed):
    """Kafka has no topic of that name."""


class KafkasOwn(CommandFailed):
    """The topic is one that Kafka keeps for itself."""


class Limits(NamedTuple):
    """What a topic takes: how many bytes a record may have, with some 70 of Kafka's own, and whether it needs a key."""

    largest: int
    only_keyed: bool


def common() -> dict[str, object]:
    # kafka-python logs each attempt; the command reports the failure once.
    logging.getLogger("kafka").setLevel(logging.CRITICAL + 1)
    return {
        "client_id": "kafka-cli",
        "bootstrap_timeout_ms": ANSWER_MS,
        "request_timeout_ms": ANSWER_MS,
        "reconnect_backoff_max_ms": 1_000,
    }


@contextmanager
def kafka_errors(settings: Settings) -> Iterator[None]:
    """Turns what kafka-python raises into one line. Raises Unreachable or CommandFailed."""
    try:
        yield
    except (UnknownTopicOrPartitionError, InvalidTopicError) as error:
        raise CommandFailed(f"there is no such topic or partition: {error}") from error
    except MessageSizeTooLargeError as error:
        raise CommandFailed("the record is larger than the topic takes (its max.message.bytes)") from error
    except BrokerResponseError as error:
        raise CommandFailed(f"Kafka refused: {error}") from error
    except RetriableError as error:
        raise Unreachable(away(settings)) from error
    except KafkaError as error:
        raise CommandFailed(f"Kafka: {error}") from error


def away(settings: Settings) -> str:
    return (
        f"Kafka at {','.join(settings.kafka_servers)} does not answer: ./start.sh starts it, ./status.sh shows it "
        "(KAFKA_BOOTSTRAP_SERVERS or KAFKA_PORT say where it is)"
    )


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    with kafka_errors(settings):
        client = kafka_clients.connect(KafkaAdminClient, settings, **common())
        try:
            yield client
        finally:
            client.close()


@contextmanager
def consumer(settings: Settings, **options: object) -> Iterator[KafkaConsumer]:
    """As `replay.reading.reader`."""
    with kafka_errors(settings):
        client = reading.reader(settings, **{**common(), **options})
        try:
            yield client
        finally:
            client.close(timeout_ms=1_000)


@contextmanager
def producer(settings: Settings, largest: int, *, patience_ms: int = ANSWER_MS) -> Iterator[KafkaProducer]:
    """A producer with acks=all; a record that is not acknowledged after `patience_ms` has failed.

    `largest` is what the topic takes: a record that has more is not sent, and no batch has more.
    """
    with kafka_errors(settings):
        client = kafka_clients.connect(
            KafkaProducer,
            settings,
            **{**common(), "request_timeout_ms": min(ANSWER_MS, patience_ms) - LINGER_MS},
            acks="all",
            batch_size=min(BATCH_BYTES, largest),
            linger_ms=LINGER_MS,
            delivery_timeout_ms=patience_ms,
            max_block_ms=ANSWER_MS,
            max_request_size=largest,
            partitioner=KeyPartitioner(),
            metrics_enabled=False,
        )
        try:
            yield client
        finally:
            kafka_clients.close(client, seconds=1)


def partitions(client: KafkaAdminClient, topic: str, *, internal: bool = False) -> list[TopicPartition]:
    """The partitions of a topic, with `internal` also of one of Kafka's own. Raises NoSuchTopic, which names the topics
    that there are, and KafkasOwn."""
    described = {found["name"]: found for found in client.describe_topics()}
    own = {name for name, found in described.items() if found["is_internal"]}
    if topic not in described:
        names = ", ".join(sorted(described.keys() - own))
        raise NoSuchTopic(f"there is no topic {topic!r}; there is: {names or 'none yet'}")
    if topic in own and not internal:
        raise KafkasOwn(f"{topic} is Kafka's own, and takes no records of others")
    return sorted(TopicPartition(topic, partition["partition_index"]) for partition in described[topic]["partitions"])


def limits(client: KafkaAdminClient, topic: str) -> Limits:
    """What the topic's configuration has, or a broker's default where it tells nothing."""
    asked = ConfigResource(ConfigResourceType.TOPIC, topic, {"max.message.bytes": None, "cleanup.policy": None})
    found = client.describe_configs([asked], config_filter="all").get("topic", {}).get(topic, {})
    most, cleanup = (found.get(name, {}).get("value") for name in ("max.message.bytes", "cleanup.policy"))
    return Limits(int(most) if most else kafka_clients.BROKER_MAX_BYTES, "compact" in (cleanup or ""))
