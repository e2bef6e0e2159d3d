"""What of a task lies in Redis, and whether any Celery can read it."""

import json
from collections.abc import Callable, Iterator

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine

from settings import Settings
from tasks import transport
from tests.parts import Running, eventually

Start = Callable[..., Running]

TEXT = 'Grüße, "quoted" \\ \U0001f600'


@pytest.fixture
def sender(settings: Settings, broker: redis.Redis) -> Iterator[Celery]:
    """Sends as the bridge does."""
    transport.install()
    app = Celery(broker=settings.redis_address, broker_transport_options={"body_encoding": transport.UTF_8})
    yield app
    app.close()


def test_arguments_are_text_in_redis(sender: Celery, broker: redis.Redis) -> None:
    sender.send_task("tasks.persist_text", args=[[TEXT]], queue="persist")
    (message,) = broker.lrange("persist", 0, -1)
    body = json.loads(message)["body"]
    assert json.loads(body)[0] == [[TEXT]]


def test_a_celery_without_our_settings_understands_the_workers(
    settings: Settings, database: Engine, start: Start, broker: redis.Redis
) -> None:
    worker = start("persist-worker")
    with Celery(broker=settings.redis_address) as stranger:
        assert eventually(lambda: stranger.control.ping(timeout=2), timeout=30)
        stranger.send_task("tasks.sweep", queue="persist")
        eventually(lambda: broker.llen("persist") == 0)
    assert worker.alive


def test_nothing_is_kept_in_redis_of_a_task_that_is_done(
    sender: Celery, database: Engine, start: Start, broker: redis.Redis
) -> None:
    start("persist-worker")
    for _ in range(3):
        sender.send_task("tasks.sweep", queue="persist")
    eventually(lambda: broker.llen("persist") == 0)
    assert not broker.keys("unacked*")


def test_a_channel_keeps_its_client_as_long_as_its_pool_lives(sender: Celery, broker: redis.Redis) -> None:
    with sender.connection_for_write() as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client, channel.conn_or_acquire() as again:
            assert client is again
        channel._disconnect_pools()
        with channel.conn_or_acquire() as fresh:
            assert fresh is not client
            assert fresh.ping()
