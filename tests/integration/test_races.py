"""Changes that arrive at the worst moment, on the whole pipeline: while the message is being embedded, while it is in a
task's hand, or after a replay has begun. Never a stale vector, never a row that comes back."""

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import redis
from kafka import KafkaProducer
from sqlalchemy import Engine, text

from bridge.message import message_id
from settings import Settings
from tests.embedder_parts import KEY, Gate
from tests.integration.test_bridge import all_committed, committed
from tests.kafka_cli import Cli
from tests.parts import Running, eventually
from tests.samples import ask, embedded, run

Start = Callable[..., Running]


@pytest.fixture
def parts(settings: Settings, gate: Gate, start: Start) -> Settings:
    """Bridge, persist worker and an embed worker whose provider is the gate."""
    changes = {
        "embedding_provider": "openai",
        "openai_base_url": gate.url,
        "openai_api_key": KEY,
        "openai_timeout_seconds": 60.0,
    }
    start("persist-worker")
    start("embed-worker", **changes)
    start("beat")
    start("bridge")
    return replace(settings, **changes)  # type: ignore[arg-type]


class Message:
    """One message id, and what the outside does to it and sees of it."""

    def __init__(self, settings: Settings, database: Engine, producer: KafkaProducer, source_id: str) -> None:
        self.topic = settings.kafka_topic
        self.database = database
        self.producer = producer
        self.source_id = source_id
        self.id = message_id(source_id)[0]

    def send(self, message: str | None) -> None:
        """A record through Kafka; None is a tombstone."""
        value = None if message is None else json.dumps({"id": self.source_id, "text": message}).encode()
        self.producer.send(self.topic, value, key=self.source_id.encode()).get(10)

    def update(self, *messages: str) -> None:
        for message in messages:
            statement = "UPDATE text_messages SET message = :message WHERE id = CAST(:id AS uuid)"
            run(self.database, statement, message=message, id=self.id)

    def delete(self) -> None:
        run(self.database, "DELETE FROM text_messages WHERE id = CAST(:id AS uuid)", id=self.id)

    @property
    def stored(self) -> str | None:
        found = ask(self.database, "SELECT message FROM text_messages WHERE id = CAST(:id AS uuid)", id=self.id)
        return found[0]["message"] if found else None

    @property
    def vectors(self) -> int:
        query = "SELECT count(*) AS n FROM message_embeddings WHERE message_id = CAST(:id AS uuid)"
        return int(ask(self.database, query, id=self.id)[0]["n"])

    @property
    def embedded(self) -> bool:
        return self.id in embedded(self.database)

    def check(self, wanted: str | None) -> None:
        """The text is the wanted one and has its one vector; or there is neither."""
        assert (self.stored, self.vectors, self.embedded) == (wanted, int(wanted is not None), wanted is not None)


def is_stored(message: Message, wanted: str | None) -> bool:
    return message.stored == wanted


def settled(database: Engine) -> bool:
    """Nothing is under way but the second look at a deletion, which comes 35 s later."""
    return ask(database, "SELECT FROM embedding_jobs WHERE NOT deleted") == []


Change = Callable[[Message], None]
CHANGES: dict[str, tuple[Change, str | None]] = {
    "an edit": (lambda message: message.send("newer"), "newer"),
    "a tombstone": (lambda message: message.send(None), None),
    "an UPDATE": (lambda message: message.update("newer"), "newer"),
    "a DELETE": (Message.delete, None),
    "there and back": (lambda message: message.update("newer", "older a"), "older a"),
}


@pytest.fixture
def cases(settings: Settings, database: Engine, producer: KafkaProducer) -> list[tuple[Message, Change, str | None]]:
    return [(Message(settings, database, producer, name), *CHANGES[name]) for name in CHANGES]


def test_while_the_message_is_being_embedded(
    database: Engine, parts: Settings, gate: Gate, cases: list[tuple[Message, Change, str | None]]
) -> None:
    for message, change, wanted in cases:
        gate.open.clear()
        gate.inside.clear()
        message.send("older a")
        eventually(lambda: gate.has("older a"))
        change(message)
        eventually(partial(is_stored, message, wanted))
        gate.open.set()
        eventually(lambda: settled(database))
        message.check(wanted)


def test_after_a_replay_has_begun(
    cli: Cli,
    settings: Settings,
    database: Engine,
    parts: Settings,
    broker: redis.Redis,
    cases: list[tuple[Message, Change, str | None]],
) -> None:
    def all_read() -> bool:
        return all_committed(settings) and broker.llen("persist") == 0 and settled(database)

    for message, _, _ in cases:
        for text_ in ("first", "second", "older a"):
            message.send(text_)
    eventually(lambda: all(message.stored == "older a" for message, _, _ in cases))
    eventually(all_read)
    cli("rewind", "--to-beginning", "--yes")
    for message, change, _ in cases:
        change(message)
    eventually(all_read)
    cli("rewind", "--to-beginning", "--yes")
    eventually(all_read)
    for message, _, wanted in cases:
        message.check(wanted)


@pytest.mark.parametrize("typed", ["UPDATE text_messages SET message = 'newer'", "DELETE FROM text_messages"])
def test_while_a_newer_record_of_it_is_in_a_tasks_hand(
    settings: Settings, database: Engine, parts: Settings, producer: KafkaProducer, typed: str
) -> None:
    message = Message(settings, database, producer, "a")
    message.send("first")
    eventually(lambda: message.embedded)
    with database.connect() as connection:  # somebody's open transaction holds the row, so the task waits for it
        connection.execute(text(typed))
        message.send("from the log")
        waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        eventually(lambda: ask(database, waits) != [])
        connection.commit()
    # The record is later than the version that was edited or deleted by hand, and the log decides.
    eventually(lambda: message.stored == "from the log" and settled(database))
    message.check("from the log")


def messages(database: Engine) -> list[str]:
    return [found["message"] for found in ask(database, "SELECT message FROM text_messages")]


def test_a_row_that_somebody_holds_keeps_no_neighbour_waiting(
    settings: Settings, database: Engine, producer: KafkaProducer, start: Start
) -> None:
    held = Message(settings, database, producer, "n-30")
    held.send("first")
    start("persist-worker")
    start("bridge")
    eventually(lambda: held.stored == "first" and all_committed(settings))

    def send(first: int, last: int) -> None:
        for number in range(first, last):
            value = json.dumps({"id": f"n-{number}", "text": f"text {number}"}).encode()
            producer.send(settings.kafka_topic, value, partition=number % 4)
        producer.flush()

    with database.connect() as connection:
        connection.execute(text("UPDATE text_messages SET message = 'held'"))
        send(0, 60)
        eventually(lambda: len(messages(database)) == 60, timeout=30)
        assert held.stored == "first"
        send(100, 120)
        eventually(lambda: len(messages(database)) == 80)
        connection.rollback()
    eventually(lambda: held.stored == "text 30")
    eventually(lambda: all_committed(settings))
    assert sum(committed(settings).values()) == 81
    assert ask(database, "SELECT FROM dead_letters") == []
