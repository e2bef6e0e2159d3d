"""What `python -m bridge` takes, what it does, and how it ends."""

import argparse
import contextlib
import logging
import signal
import sys
import time
from collections.abc import Sequence

from kafka.errors import FencedInstanceIdError, KafkaError

import settings as configuration
import streams
from bridge import dead_letters, topics
from bridge.consumer import Bridge, connect_consumer
from bridge.hand_over import HandOvers
from replay import record_batches
from settings import Settings
from tasks import garbage
from tasks.app import app
from telemetry import logs, numbers_store, tracing

log = logging.getLogger("bridge")


def main(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(
        prog="python -m bridge",
        description="Reads the topic as a member of the consumer group and hands its records to the tasks, until "
        "SIGTERM or Ctrl-C. Its settings are read from .env and the environment; .env.example lists them.",
        epilog="exit codes: 0 ended as it was asked to, 1 Kafka is away or refuses, 2 wrong usage or setting",
    ).parse_args(arguments)
    try:
        settings = configuration.load()
        tracing.is_on(settings)
    except configuration.InvalidSetting as error:
        print(f"bridge: {error}", file=sys.stderr)
        return streams.WRONG_USAGE
    logs.set_up(settings, f"bridge-{settings.bridge_id}" if settings.bridge_id else "bridge")
    try:
        run(settings)
    except FencedInstanceIdError:
        log.error(
            "another bridge runs in the group %s with BRIDGE_ID=%s: give each one of its own, or each installation on "
            "this Kafka a KAFKA_GROUP_ID",
            settings.kafka_group_id,
            settings.bridge_id,
        )
        return streams.FAILED
    except KafkaError as error:
        log.error("Kafka at %s: %s", ",".join(settings.kafka_servers), error)
        return streams.FAILED
    return 0


def run(settings: Settings) -> None:
    topics.create_with_patience(settings, 60)
    record_batches.install()
    consumer = connect_consumer(settings)
    producer = dead_letters.connect_producer(settings)
    bridge = Bridge(settings, consumer, HandOvers(settings, app, producer))
    tracing.watch_bridge(settings, bridge.hand_overs)

    def stop(_signal: int, _frame: object) -> None:
        bridge.stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    log.info(
        "reading %s as %s, member %s", settings.kafka_topic, settings.kafka_group_id, settings.bridge_id or "dynamic"
    )
    numbers_store.begin("bridge")
    garbage.look_seldom()
    started = time.monotonic()
    bridge.run()
    with contextlib.suppress(KafkaError):  # the next start sends the letters that are left
        producer.close(timeout=2)
    log.info("ran for %.0f s", time.monotonic() - started)
