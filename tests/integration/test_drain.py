"""Draining: the intake is held until nothing is under way, is said to be held, and goes on by command."""

import json
from collections.abc import Callable

import redis
from kafka import KafkaProducer
from sqlalchemy import Engine

from redis_keys import PAUSED, steering_key
from settings import Settings
from stack import pipeline_state
from tests.integration.test_bridge import all_committed, stored
from tests.kafka_cli import Cli
from tests.parts import Running, eventually
from tests.samples import ask, send_texts

Start = Callable[..., Running]


def waiting(database: Engine) -> int:
    return int(ask(database, "SELECT count(*) FROM embedding_jobs")[0]["count"])


def test_drained_means_stored_embedded_and_committed_and_the_intake_stays_paused(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    for part in ("persist-worker", "embed-worker", "bridge", "beat"):
        start(part, bridge_batch_max=10)
    send_texts(producer, settings, 0, 500)
    eventually(lambda: stored(database))
    told = json.loads(cli("drain", "--timeout", "60", "--json"))
    assert (told["drained"], told["tasks"], told["pending"]) == (True, 0, 0)
    assert waiting(database) == 0
    taken = len(stored(database))
    send_texts(producer, settings, 500, 520)
    lag = json.loads(cli("lag", "--json"))
    assert lag["paused"] is True
    assert lag["total"] == 520 - taken  # all that was taken is committed
    cli("lag")
    assert "paused" in cli.said
    assert pipeline_state.intake_paused(settings) is True
    assert len(stored(database)) == taken
    cli("resume")
    eventually(lambda: len(stored(database)) == 520, timeout=30)
    eventually(lambda: all_committed(settings))
    assert json.loads(cli("lag", "--json"))["paused"] is False
    assert pipeline_state.intake_paused(settings) is False


def test_what_a_bridge_has_in_hand_is_not_drained(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    """Not even where Redis has lost the task that it waits for, and looks empty."""
    start("bridge", bridge_lease_seconds=60)
    send_texts(producer, settings, 0, 5)
    eventually(lambda: broker.llen("persist") > 0)
    broker.flushdb()
    cli("drain", "--timeout", "3", code=1)
    assert "not drained within 3 s" in cli.said
    assert "partitions with records in hand" in cli.said
    assert "stays paused" in cli.said
    cli("drain", "--timeout", "1", "--json", code=1)


def test_texts_without_a_vector_are_not_drained(
    cli: Cli, settings: Settings, database: Engine, producer: KafkaProducer, start: Start, broker: redis.Redis
) -> None:
    for part in ("persist-worker", "bridge", "beat"):
        start(part)
    send_texts(producer, settings, 0, 5)
    eventually(lambda: len(stored(database)) == 5)
    cli("drain", "--timeout", "2", code=1)
    assert "5 texts to embed" in cli.said
    start("embed-worker")
    assert "drained in" in cli("drain", "--timeout", "60")
    assert "resume" in cli.said


def test_without_a_bridge_nothing_is_in_its_hand(cli: Cli, database: Engine, broker: object) -> None:
    assert "drained in" in cli("drain", "--timeout", "20")


def test_a_wrong_wish_and_a_broker_that_is_away_are_said() -> None:
    away = Settings(redis_url="redis://127.0.0.1:1/0")
    cli = Cli(away)
    cli("drain", "--timeout", "soon", code=2)
    cli("drain", code=3)
    assert "127.0.0.1:1/0 does not answer" in cli.said
    assert cli.said.count("\n") == 1
    assert pipeline_state.intake_paused(away) is None


def test_the_local_stack_looks_where_the_wish_stands(settings: Settings, broker: redis.Redis) -> None:
    """It imports nothing of the bridge, but the same names in Redis."""
    assert pipeline_state.intake_paused(settings) is False
    broker.hset(steering_key(settings.kafka_group_id), PAUSED, "x")
    assert pipeline_state.intake_paused(settings) is True
