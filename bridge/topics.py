"""`python -m bridge.topics`: creates the topic and that of its dead letters if absent, and changes nothing else."""

import argparse
import logging
import re
import sys
import time
from collections.abc import Sequence

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, TopicAlreadyExistsError

import kafka_clients
import settings as configuration
import streams
from settings import Settings

log = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000
DEAD_LETTER_RETENTION_MS = 30 * DAY_MS

# The reason that a Kafka gives which refuses a topic, within request and response as kafka-python's error quotes them.
REFUSED = re.compile(r"error_message=(['\"])(.+?)\1, ")


def wanted(settings: Settings) -> dict[str, dict[str, object]]:
    """The topics with their settings. LogAppendTime makes the broker's clock decide which record is the later one."""
    common = {
        "num_partitions": settings.kafka_topic_partitions,
        "replication_factor": settings.kafka_replication_factor,
    }
    # Whole segments are removed: without this a record could outlive its retention by a week.
    segment = {"segment.ms": str(min(settings.kafka_retention_ms, DAY_MS))} if settings.kafka_retention_ms > 0 else {}
    return {
        settings.kafka_topic: {
            **common,
            "configs": {
                **segment,
                "message.timestamp.type": "LogAppendTime",
                "retention.ms": str(settings.kafka_retention_ms),
                "retention.bytes": "-1",
                "cleanup.policy": "delete",
            },
        },
        settings.dead_letter_topic: {
            **common,
            "num_partitions": 1,
            "configs": {"retention.ms": str(DEAD_LETTER_RETENTION_MS), "cleanup.policy": "delete"},
        },
    }


def create(settings: Settings, *, only: str | None = None) -> list[str]:
    """Creates the topics that are absent, or `only` this one, and returns their names. Raises KafkaError when Kafka
    cannot be reached or refuses."""
    # The default back-off grows to half a minute, and a bridge that starts during an outage waits in here.
    admin = kafka_clients.connect(
        KafkaAdminClient,
        settings,
        client_id="topics",
        request_timeout_ms=10_000,
        reconnect_backoff_max_ms=500,
        bootstrap_timeout_ms=5_000,
    )
    created = []
    try:
        present = set(admin.list_topics())
        for name, options in wanted(settings).items():
            if name not in present and only in (None, name):
                try:
                    admin.create_topics({name: options}, wait_for_metadata=True)
                    created.append(name)
                except TopicAlreadyExistsError:
                    pass  # two bridges start at once
    finally:
        admin.close()
    return created


def create_with_patience(settings: Settings, seconds: float) -> list[str]:
    """Like `create`, but waits up to `seconds` for a Kafka that is starting."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return create(settings)
        except KafkaError as error:
            if time.monotonic() > deadline:
                raise
            log.info("waiting for Kafka: %s", error)
            time.sleep(0.5)


def why(error: KafkaError) -> str:
    """Why there are no topics, and which settings to look at."""
    refused = REFUSED.search(str(error))
    if refused is None:
        return f"{error}; is Kafka running? (KAFKA_BOOTSTRAP_SERVERS, KAFKA_PORT)"
    return f"{refused[2]} (KAFKA_TOPIC_PARTITIONS, KAFKA_REPLICATION_FACTOR, KAFKA_RETENTION_MS)"


def main(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(
        prog="python -m bridge.topics",
        description="Creates the topic and that of its dead letters where they are absent, and changes nothing else. "
        "Its settings are read from .env and the environment; .env.example lists them.",
        epilog="exit codes: 0 they are there, 1 Kafka is away or refuses, 2 wrong usage or setting",
    ).parse_args(arguments)
    try:
        settings = configuration.load()
        created = create_with_patience(settings, 20)
    except configuration.InvalidSetting as error:
        print(f"topics: {error}", file=sys.stderr)
        return streams.WRONG_USAGE
    except KafkaError as error:
        print(f"topics: {why(error)}", file=sys.stderr)
        return streams.FAILED
    print(f"topics: created {', '.join(created)}" if created else "topics: present")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
