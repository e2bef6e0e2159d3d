"""A Redis that can be reached and refuses what it is told: it is full, or became a replica. No worker ends of that."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis
from sqlalchemy import Engine

from api.app import create_app
from api.observed import Observed
from benchmarks.servers import free_ports
from settings import Settings
from tests.parts import Running, eventually, send_task, service
from tests.samples import a_record, ask, embedded, persist

Start = Callable[..., Running]


@pytest.fixture
def settings(settings: Settings) -> Iterator[Settings]:
    """With a Valkey of its own: what is done to it is done to all its databases."""
    (port,) = free_ports(1)
    chosen = replace(settings, redis_port=port, redis_url=f"redis://127.0.0.1:{port}/0")
    running = service(chosen, "valkey")
    yield chosen
    running.stop()


def send_job(settings: Settings, database: Engine) -> None:
    (job,) = ask(database, "SELECT id FROM embedding_jobs")
    send_task(settings, "tasks.embed_text", [job["id"]])


def test_a_worker_that_starts_at_a_full_broker_makes_room_in_it(
    settings: Settings, database: Engine, broker: redis.Redis, start: Start
) -> None:
    record = a_record("one")
    persist(database, record)
    send_job(settings, database)
    broker.config_set("maxmemory", "1mb")
    with pytest.raises(redis.exceptions.OutOfMemoryError):
        broker.set("one", "more")
    worker = start("embed-worker", wait=False)
    eventually(lambda: embedded(database) == {record.id}, timeout=40)
    assert broker.llen("embed") == 0
    assert worker.alive


def test_the_apis_tell_of_a_broker_that_takes_nothing(settings: Settings, broker: redis.Redis) -> None:
    """It answers a PING."""
    app = create_app("search", replace(settings, database_port=1, kafka_port=1))
    observed = Observed(settings, app.extensions["parts"].reader)

    def told() -> tuple[str, str | None]:
        health = app.test_client().get("/health").get_json()
        return health["checks"]["broker"], observed.broker.look_since(time.monotonic(), 5).problem

    try:
        assert told() == ("ok", None)
        broker.config_set("maxmemory", "1")
        assert told() == ("command not allowed when used memory > 'maxmemory'.",) * 2
        broker.config_set("maxmemory", "0")
        assert told() == ("ok", None)
    finally:
        app.extensions["parts"].close()


def test_a_worker_outlives_a_broker_that_is_a_replica_for_a_while(
    settings: Settings, database: Engine, broker: redis.Redis, start: Start
) -> None:
    worker = start("embed-worker")
    broker.replicaof("127.0.0.1", "1")
    eventually(lambda: worker.log.read_text().count("ReadOnlyError") > 1, timeout=30)
    assert worker.alive
    assert re.search("tasks.consumer: broker away: .* read only replica", worker.log.read_text())
    broker.replicaof("NO", "ONE")
    record = a_record("one")
    persist(database, record)
    send_job(settings, database)
    eventually(lambda: embedded(database) == {record.id}, timeout=30)
    assert worker.alive
    assert worker.log.read_text().count("Connection to broker lost") < 10
