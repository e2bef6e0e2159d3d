"""Draining: the intake is held until nothing is under way, is said to be held, and goes on by command."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields

import pytest
import redis
from kafka import KafkaProducer
from sqlalchemy import Engine

from bridge import steering
from settings import ROOT, Settings
from stack import probes
from tests.integration.test_bridge import all_committed, stored
from tests.parts import Running, eventually
from tests.samples import ask

Start = Callable[..., Running]


@pytest.fixture
def producer(settings: Settings, topic: str) -> Iterator[KafkaProducer]:
    client = KafkaProducer(**settings.kafka_client(), acks="all", allow_auto_create_topics=False)
    yield client
    client.close(timeout=5)


def send(producer: KafkaProducer, settings: Settings, first: int, last: int) -> None:
    for number in range(first, last):
        producer.send(settings.kafka_topic, json.dumps({"id": f"n-{number}", "text": f"text {number}"}).encode())
    producer.flush()


def cli(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    values = {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}
    return subprocess.run(
        [sys.executable, str(ROOT / "kafka_cli.py"), *arguments],
        env={name: value for name, value in values.items() if value},
        capture_output=True,
        timeout=90,
        check=False,
        text=True,
    )


def waiting(database: Engine) -> int:
    return int(ask(database, "SELECT count(*) FROM embedding_jobs")[0]["count"])


def test_drained_means_stored_embedded_and_committed_and_the_intake_stays_paused(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    for part in ("persist-worker", "embed-worker", "bridge", "beat"):
        start(part, bridge_batch_max=10)
    send(producer, settings, 0, 500)
    eventually(lambda: stored(database))
    answer = cli(settings, "drain", "--timeout", "60", "--json")
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert (told["drained"], told["tasks"], told["pending"]) == (True, 0, 0)
    assert waiting(database) == 0
    taken = len(stored(database))
    send(producer, settings, 500, 520)
    lag = cli(settings, "lag", "--json")
    assert json.loads(lag.stdout)["paused"] is True
    assert json.loads(lag.stdout)["total"] == 520 - taken  # all that was taken is committed
    assert "paused" in cli(settings, "lag").stderr
    assert probes.intake_paused(settings) is True
    assert len(stored(database)) == taken
    assert cli(settings, "resume").returncode == 0
    eventually(lambda: len(stored(database)) == 520, timeout=30)
    eventually(lambda: all_committed(settings))
    assert json.loads(cli(settings, "lag", "--json").stdout)["paused"] is False
    assert probes.intake_paused(settings) is False


def test_what_a_bridge_has_in_hand_is_not_drained(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    """Not even where Redis has lost the task that it waits for, and looks empty."""
    start("bridge", bridge_lease_seconds=60)
    send(producer, settings, 0, 5)
    eventually(lambda: broker.llen("persist") > 0)
    broker.flushdb()
    answer = cli(settings, "drain", "--timeout", "3")
    assert answer.returncode == 1
    assert "not drained within 3 s" in answer.stderr
    assert "partitions with records in hand" in answer.stderr
    assert "stays paused" in answer.stderr
    assert cli(settings, "drain", "--timeout", "1", "--json").returncode == 1


def test_texts_without_a_vector_are_not_drained(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    for part in ("persist-worker", "bridge", "beat"):
        start(part)
    send(producer, settings, 0, 5)
    eventually(lambda: len(stored(database)) == 5)
    answer = cli(settings, "drain", "--timeout", "2")
    assert answer.returncode == 1
    assert "5 texts to embed" in answer.stderr
    start("embed-worker")
    answer = cli(settings, "drain", "--timeout", "60")
    assert answer.returncode == 0, answer.stderr
    assert "drained in" in answer.stdout
    assert "resume" in answer.stderr


def test_without_a_bridge_nothing_is_in_its_hand(
    settings: Settings, database: Engine, topic: str, broker: object
) -> None:
    answer = cli(settings, "drain", "--timeout", "20")
    assert answer.returncode == 0, answer.stderr


def test_a_wrong_wish_and_a_broker_that_is_away_are_said(settings: Settings) -> None:
    assert cli(settings, "drain", "--timeout", "soon").returncode == 2
    away = Settings(redis_url="redis://127.0.0.1:1/0")
    answer = cli(away, "drain")
    assert answer.returncode == 3
    assert "127.0.0.1:1/0 does not answer" in answer.stderr
    assert answer.stderr.count("\n") == 1
    assert probes.intake_paused(away) is None


def test_the_local_stack_looks_where_the_wish_stands(settings: Settings, broker: redis.Redis) -> None:
    """It may import nothing of the bridge, so it has the names a second time."""
    assert probes.intake_paused(settings) is False
    broker.hset(steering.key(settings.kafka_group_id), steering.PAUSED, "x")
    assert probes.intake_paused(settings) is True
