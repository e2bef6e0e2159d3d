"""What somebody else has put into a queue ends no worker, is said, and stays away; what stands behind it is done."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis
from celery import Celery
from celery.exceptions import WorkerShutdown
from sqlalchemy import Engine

import celeryconfig
from settings import Settings
from tasks import consumer, transport
from tests.parts import Running, eventually
from tests.queue_items import NO_MESSAGES, NO_TASKS, SECRET, an_item
from tests.samples import a_record, ask

Start = Callable[..., Running]


def store(broker: redis.Redis, database: Engine, text: str) -> None:
    broker.lpush("persist", an_item([a_record(text)]))
    eventually(lambda: {"message": text} in ask(database, "SELECT message FROM text_messages"))


def test_a_worker_outlives_every_one_of_them(
    settings: Settings, database: Engine, start: Start, broker: redis.Redis
) -> None:
    worker = start("persist-worker")
    refused = {name: item for name, (item, _) in NO_MESSAGES.items()}
    for number, (name, item) in enumerate({**refused, **NO_TASKS}.items()):
        broker.lpush("persist", item)
        store(broker, database, f"behind {number}")
        assert worker.alive, name
    log = worker.log.read_text()
    assert SECRET not in "".join(line for line in log.splitlines() if "is dropped" in line)
    assert "Connection to broker lost" not in log
    assert log.count("ERROR tasks.transport: an item of the queue persist is no message, and is dropped") == len(
        refused
    )
    assert log.count("ERROR tasks.consumer: an item of the queue persist is no task, and is dropped") == len(NO_TASKS)
    assert broker.llen("persist") == 0
    with Celery(broker=settings.redis_address) as stranger:
        (held,) = (stranger.control.inspect().reserved() or {}).values()
    assert held == [], "it would count as at work, for the watchdog too"


class Consumer(consumer.Consumer):
    """As far as it is asked here: what it consumes, and how its connection ends."""

    def __init__(self, channel: object, end: BaseException) -> None:
        self.task_consumer = SimpleNamespace(channel=channel)
        self.end = end
        self.event_dispatcher = None
        self.pool = None
        self.channel_errors = ()


def ended(self: Consumer) -> None:
    raise self.end


@pytest.mark.parametrize(
    ("end", "back"), [(RuntimeError("a mistake"), 0), (WorkerShutdown(0), 1)], ids=["error", "stop"]
)
def test_what_a_worker_has_in_hand_is_put_back_but_where_an_error_ends_it(
    settings: Settings, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, end: BaseException, back: int
) -> None:
    monkeypatch.setattr("celery.worker.consumer.Consumer.start", ended)
    assert put_back(settings, broker, end, lambda worker: worker.start()) == back


@pytest.mark.parametrize(("end", "back"), [(KeyError("a mistake"), 0), (redis.ConnectionError(), 1)], ids=repr)
def test_nor_is_it_where_celery_takes_a_mistake_for_an_outage(
    settings: Settings, broker: redis.Redis, monkeypatch: pytest.MonkeyPatch, end: Exception, back: int
) -> None:
    monkeypatch.setattr("celery.worker.consumer.Consumer.on_connection_error_after_connected", lambda *_: None)
    assert put_back(settings, broker, end, lambda worker: worker.on_connection_error_after_connected(end)) == back


def put_back(settings: Settings, broker: redis.Redis, end: BaseException, ends: Callable[[Consumer], None]) -> int:
    """How many tasks are in the queue once the channel of a worker that had one in hand is closed."""
    transport.install()
    options = {name: celeryconfig.broker_transport_options[name] for name in ("body_encoding", "ack_emulation")}
    broker.lpush("persist", an_item([]))
    with Celery(broker=settings.redis_address, broker_transport_options=options) as app, app.connection() as connection:
        channel = connection.default_channel
        assert channel.basic_get("persist") is not None
        try:
            ends(Consumer(channel, end))
        except (RuntimeError, WorkerShutdown) as error:
            assert error is end
        channel.close()
    return int(broker.llen("persist"))
