"""Records, texts, vectors and questions to the tables, as the tests of the database need them."""

import hashlib
import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from kafka import KafkaProducer
from sqlalchemy import Engine, text

from db import commands, embeddings, outbox
from db.commands import Stored
from db.deadline import BoundedCursor
from db.embeddings import Embedded, Vectors
from records import DeadLetter, Record
from settings import Settings
from tests.parts import eventually

MODEL = "sample-4"
LEASE = str(uuid.UUID(int=1))
OTHER_LEASE = str(uuid.UUID(int=2))


def a_record(
    message: str | None,
    version: tuple[int, int, int] = (1_700_000_000_000, 0, 0),
    *,
    id: str | None = None,
    source_id: str | None = None,
    metadata: str | None = None,
    replayed: tuple[str, int, int] | None = None,
) -> Record:
    return Record(id or str(uuid.uuid4()), source_id, message, metadata, *version, replayed)


def a_dead_letter(offset: int = 0, *, reason: str = "invalid-json", again: bool = False) -> DeadLetter:
    headers: list[tuple[str, str | None]] = [("trace", "YQ=="), ("empty", None)]
    return DeadLetter("texts", 0, offset, 1_700_000_000_000, reason, "why", "a2V5", "eyI=", 2, headers, again)


def persist(
    engine: Engine, *records: Record, reserved_seconds: float | None = None, expect_new: bool = False
) -> Stored:
    """As persist_text does, which tries again where not all were new."""
    try:
        with engine.begin() as connection:
            return commands.persist(connection, records, reserved_seconds=reserved_seconds, expect_new=expect_new)
    except commands.NotNew:
        return persist(engine, *records, reserved_seconds=reserved_seconds)


def run(engine: Engine, statement: str, **values: object) -> None:
    """What somebody types into psql, committed."""
    with engine.begin() as connection:
        connection.execute(text(statement), values)


def ask(engine: Engine, query: str, **values: object) -> list[dict[str, Any]]:
    with engine.begin() as connection:
        return [dict(row) for row in connection.execute(text(query), values).mappings()]


def row(engine: Engine, message_id: str) -> dict[str, Any] | None:
    """A row of text_messages, times as text."""
    found = ask(
        engine,
        """
        SELECT message, source_id, metadata, created_at::text, processed_at::text
        FROM text_messages WHERE id = CAST(:id AS uuid)
        """,
        id=message_id,
    )
    return found[0] if found else None


def vectors_of(texts: dict[str, str]) -> Vectors:
    """A vector for each text, of one passage that is the whole of it."""
    return Vectors(
        [uuid.UUID(message_id).bytes for message_id in texts],
        [content_hash(message) for message in texts.values()],
        [0] * len(texts),
        [(0, len(message)) for message in texts.values()],
        np.array([[1, 0, 0, number] for number in range(len(texts))], dtype=np.float32),
    )


def send_texts(
    producer: KafkaProducer, settings: Settings, first: int, last: int, *, partition: int | None = None
) -> None:
    """Sends "text N" under the id n-N, for each number, and returns when Kafka has them."""
    for number in range(first, last):
        value = json.dumps({"id": f"n-{number}", "text": f"text {number}"}).encode()
        producer.send(settings.kafka_topic, value, partition=partition)
    producer.flush()


def content_hash(message: str) -> bytes:
    return hashlib.md5(message.encode()).digest()


def embed(engine: Engine, texts: dict[str, str], lease: str = LEASE) -> None:
    """Does what a worker does for all jobs that are there, with the texts that it is told."""
    jobs = [job["id"] for job in ask(engine, "SELECT id FROM embedding_jobs")]
    with engine.begin() as connection:
        claimed = outbox.claim_jobs(connection, jobs, lease, 60)
    with engine.begin() as connection:
        embeddings.finish_with_vectors(connection, claimed, lease, MODEL, Embedded(vectors_of(texts)))


def embedded(engine: Engine) -> set[str]:
    """The ids of the messages that have a vector of the text that they have now."""
    found = ask(
        engine,
        """
        SELECT m.id::text FROM text_messages m
        JOIN message_embeddings e ON e.message_id = m.id AND e.content_hash = m.content_hash
        """,
    )
    return {each["id"] for each in found}


@contextmanager
def meanwhile(work: Callable[[], object]) -> Iterator[threading.Thread]:
    """Runs `work` in a thread beside the block; its error is raised at the end, and a hang fails."""
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - raised again below, in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(20)
    assert not thread.is_alive(), "still at it"
    if errors:
        raise errors[0]


def statements_seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What this thread asks of PostgreSQL from now on, by SQLAlchemy or past it; without its signs of life. Another
    thread may still renew the leases of an earlier test."""
    seen: list[str] = []
    execute, test = BoundedCursor.execute, threading.current_thread()

    def note(cursor: BoundedCursor, statement: str, *arguments: Any) -> None:
        if statement != "SELECT 1" and threading.current_thread() is test:
            seen.append(statement)
        execute(cursor, statement, *arguments)

    monkeypatch.setattr(BoundedCursor, "execute", note)
    return seen


def wait_until_blocked(engine: Engine, count: int = 1) -> None:
    """Waits until so many connections of this database wait for a lock."""

    def blocked() -> bool:
        waiting = ask(
            engine,
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        return len(waiting) == count

    eventually(blocked)
