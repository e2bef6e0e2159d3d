"""A log that has lost its end, as when the power goes before the last records are on the disk: what was written since
is read, though the committed offset lies behind its beginning."""

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from kafka import KafkaProducer
from sqlalchemy import Engine

import kafka_clients
from benchmarks.servers import free_ports
from bridge import topics
from settings import Settings
from stack import local_part
from tests.integration.test_bridge import committed, stored
from tests.parts import Running, eventually, service
from tests.samples import send_texts


@pytest.fixture
def own(settings: Settings, postgres: object, valkey: object) -> Settings:
    """Settings with a Kafka that is only this test's, to be stopped and robbed."""
    kafka_port, controller_port = free_ports(2)
    folder = Path(f"{settings.data_dir}-own")
    folder.mkdir(parents=True)
    return replace(settings, kafka_port=kafka_port, kafka_controller_port=controller_port, data_dir=str(folder))


@pytest.fixture
def kafka(own: Settings) -> Iterator[Running]:
    running = service(own, "kafka")
    topics.create(own)
    yield running
    running.kill()


def send(own: Settings, first: int, last: int) -> None:
    with kafka_clients.connect(KafkaProducer, own, acks="all") as producer:
        send_texts(producer, own, first, last, partition=0)


@pytest.mark.parametrize("begun_again", [0, 1], ids=["at once", "after an idle bridge"])
def test_what_was_written_in_the_place_of_lost_records_is_read(
    own: Settings, kafka: Running, database: Engine, broker: redis.Redis, begun_again: int
) -> None:
    folder = Path(own.data_dir)
    parts = {name: Running(local_part(own, name), folder / f"{name}.log") for name in ("persist-worker", "bridge")}
    partition, saved = folder / "kafka" / "log" / f"{own.kafka_topic}-0", folder / "saved"
    try:
        send(own, 0, 50)
        kafka.stop()
        shutil.copytree(partition, saved)
        kafka.start()
        kafka.wait_until_healthy()
        for part in parts.values():
            part.wait_until_healthy()
        send(own, 50, 100)
        eventually(lambda: committed(own) == {0: 100}, timeout=40)
        for _ in range(begun_again):
            parts["bridge"].stop()
            parts["bridge"].start()
            parts["bridge"].wait_until_healthy()
            time.sleep(3)  # an idle bridge commits its positions every second
        parts["bridge"].stop()
        kafka.kill()
        shutil.rmtree(partition)
        shutil.copytree(saved, partition)
        for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            (partition.parent / name).unlink(missing_ok=True)
        kafka.start()
        kafka.wait_until_healthy()
        send(own, 1000, 1080)  # at the offsets 50 to 129
        parts["bridge"].start()
        eventually(lambda: committed(own) == {0: 130}, timeout=60)
        assert {f"text {number}" for number in range(1000, 1080)} <= set(stored(database).values())
        assert "Kafka has lost records that were read already" in parts["bridge"].log_tail()
    finally:
        for part in parts.values():
            part.kill()
