"""What of a task lies in Redis, and whether any Celery can read it."""

import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from sqlalchemy import Engine

import celeryconfig
from settings import Settings
from tasks import transport
from tasks.broker import BROKER_ERRORS, said_of
from tests.parts import Running, eventually
from tests.samples import a_record

Start = Callable[..., Running]

TEXT = 'Grüße, "quoted" \\ \U0001f600'


@pytest.fixture
def sender(settings: Settings, broker: redis.Redis) -> Iterator[Celery]:
    """Sends as the bridge does."""
    transport.install()
    options = {name: celeryconfig.broker_transport_options[name] for name in ("body_encoding", "ack_emulation")}
    app = Celery(broker=settings.redis_address, broker_transport_options=options)
    yield app
    app.close()


def test_arguments_are_text_in_redis(sender: Celery, broker: redis.Redis) -> None:
    sender.send_task("tasks.persist_text", args=[[TEXT]], queue="persist")
    (message,) = broker.lrange("persist", 0, -1)
    body = json.loads(message)["body"]
    assert json.loads(body)[0] == [[TEXT]]


def test_a_key_that_is_no_list_is_named(sender: Celery, broker: redis.Redis) -> None:
    broker.set("persist", "somebody else's")
    with pytest.raises(BROKER_ERRORS) as refused:
        sender.send_task("tasks.persist_text", args=[[TEXT]], queue="persist")
    assert said_of("persist", refused.value).startswith("the key 'persist': ")


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


def test_what_cannot_be_given_back_is_written_nowhere(
    sender: Celery, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(*_: object) -> None:
        raise redis.ConnectionError("away")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    sender.send_task("tasks.persist_text", args=[[TEXT]], queue="persist")
    with sender.connection_for_read() as connection:
        channel = connection.default_channel
        assert channel.basic_get("persist") is not None
        monkeypatch.setattr(channel, "_restore", away)
        channel.qos.restore_unacked_once()
    assert list(tmp_path.iterdir()) == []


def test_a_channel_keeps_its_client_as_long_as_its_pool_lives(sender: Celery, broker: redis.Redis) -> None:
    with sender.connection_for_write() as connection:
        channel = connection.default_channel
        with channel.conn_or_acquire() as client, channel.conn_or_acquire() as again:
            assert client is again
        channel._disconnect_pools()
        with channel.conn_or_acquire() as fresh:
            assert fresh is not client
            assert fresh.ping()


def test_what_a_worker_tells_of_its_tasks_goes_out_together_and_again_after_a_lost_connection(
    sender: Celery, database: Engine, start: Start, broker: redis.Redis
) -> None:
    messages: list[list[dict[str, str]]] = []

    def succeeded(told: redis.client.PubSub) -> int:
        while (message := told.get_message(timeout=0.01)) is not None:
            messages.append(json.loads(json.loads(message["data"])["body"]))
        return sum(event["type"] == "task-succeeded" for events in messages for event in events)

    def store(count: int) -> None:
        for number in range(count):
            sender.send_task("tasks.persist_text", args=[[a_record(f"text {number}")]], queue="persist")

    with broker.pubsub(ignore_subscribe_messages=True) as told:  # type: ignore[no-untyped-call]
        told.psubscribe("*celeryev/task.multi")
        told.get_message(timeout=5)
        start("persist-worker")
        store(30)
        eventually(lambda: succeeded(told) == 30)
        assert len(messages) < 30

        store(1)
        for client in broker.client_list():
            if not int(client["psub"]) and client["cmd"] != "client|list":
                broker.client_kill_filter(_id=client["id"])
        eventually(lambda: sender.control.ping(timeout=1))
        store(30)
        eventually(lambda: succeeded(told) >= 60)
