"""Storing records, and noting dead letters. A task here is idempotent: it may run twice, late, or after a newer one."""

import logging
from collections.abc import Sequence
from typing import Any

from celery import Task
from sqlalchemy.exc import SQLAlchemyError

import settings
import tasks
from db import commands, session
from records import DeadLetter, Record
from tasks import resources
from tasks.app import app
from tasks.broker import BROKER_ERRORS, queue_length

log = logging.getLogger(__name__)

Rejected = tuple[int, str]  # place in the batch, what the database said


class Outage(Exception):
    """The database or the broker is away: to be tried again, as often as it takes. Counts as no attempt."""


@app.task(bind=True, name=tasks.PERSIST_TEXT, max_retries=None)
def persist_text(self: Task, records: list[list[Any]]) -> dict[str, Any]:
    """Stores the records of one hand-over, and chains the embedding of what was written.

    `records` are Records as lists. Returns {"stored": rows written, "rejected": [[place, detail], ...]}: the rejected
    are those that the database refuses on their own account, found by halving; none of their neighbours suffers.
    """
    batch = [read(record) for record in records]
    chained = embed_queue_has_room()
    reserved = settings.load().embed_lease_seconds if chained else None
    try:
        stored, rejected = store(batch, 0, reserved)
    except Outage as outage:
        raise retry(self, outage) from outage
    if stored.jobs:
        winners = [record for record, _ in commands.latest(batch)[0]]
        texts = {record.id: str(record.message) for record in winners if record.id in stored.ids}
        chain_embedding(stored.jobs, texts)
    return {"stored": len(stored.ids), "rejected": rejected}


def read(fields: list[Any]) -> Record:
    record = Record(*fields)
    if record.replayed is None:
        return record
    topic, partition, offset = record.replayed
    return record._replace(replayed=(topic, partition, offset))


def store(batch: Sequence[Record], start: int, reserved: float | None) -> tuple[commands.Stored, list[Rejected]]:
    """Stores a batch, or its halves where it cannot pass as a whole. Raises Outage, with some of it perhaps stored."""
    try:
        with resources.engine().begin() as connection:
            return commands.persist(connection, batch, reserved_seconds=reserved), []
    except (SQLAlchemyError, ValueError) as error:
        if session.is_outage(error):
            raise Outage(reason(error)) from error
        if len(batch) == 1:
            log.warning("rejected by the database: partition %d offset %d", batch[0].partition, batch[0].offset)
            return commands.Stored([], set()), [(start, reason(error))]
    middle = len(batch) // 2
    first, first_rejected = store(batch[:middle], start, reserved)
    second, second_rejected = store(batch[middle:], start + middle, reserved)
    return commands.Stored(first.jobs + second.jobs, first.ids | second.ids), first_rejected + second_rejected


def reason(error: Exception) -> str:
    """The first line of what the database said; no statement and no values, which may be anybody's text."""
    return (str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__])[0][:500]


def retry(task: Task, outage: Outage, **kwargs: Any) -> Exception:
    """Sends the task once more after a pause, with these keyword arguments; the caller raises what it returns.

    The number keeps each RETRY result different from the one before, which is how the bridge sees that somebody is at
    it.
    """
    attempt = task.request.retries
    if attempt in (0, 10) or attempt % 100 == 0:
        log.warning("%s: away, trying again (%d): %s", task.name, attempt, outage)
    again: Exception = task.retry(
        exc=Outage(f"{outage} ({attempt})"),
        kwargs=kwargs,
        countdown=resources.backoff(attempt),
        throw=False,
        queue=task.request.delivery_info["routing_key"],
        argsrepr=task.request.argsrepr,
        kwargsrepr="{}",
    )
    return again


def embed_queue_has_room() -> bool:
    """Whether to chain: a long queue is left alone, the jobs wait in PostgreSQL, and the sweep feeds them in."""
    try:
        return queue_length("embed") < settings.load().embed_queue_max
    except BROKER_ERRORS:
        return False


def chain_embedding(jobs: list[int], texts: dict[str, str]) -> None:
    """Sends embed_text for stored messages, with their texts, so that it need not read them. If that fails, or the
    message is lost, the sweep finds the jobs when their reservation has run out."""
    try:
        app.send_task(
            tasks.EMBED_TEXT,
            args=[jobs, texts],
            argsrepr=f"({len(texts)} texts)",
            kwargsrepr="{}",
            expires=60,
        )
    except BROKER_ERRORS as error:
        log.warning("could not chain the embedding, left to the sweep: %s", error)


@app.task(bind=True, name=tasks.RECORD_DEAD_LETTERS, max_retries=None)
def record_dead_letters(self: Task, letters: list[list[Any]]) -> int:
    """Notes dead letters in their table, each once for its coordinates; returns how many it was given."""
    try:
        with resources.engine().begin() as connection:
            commands.record_dead_letters(connection, [DeadLetter(*letter) for letter in letters])
    except SQLAlchemyError as error:
        if not session.is_outage(error):
            raise
        raise retry(self, Outage(reason(error))) from error
    return len(letters)
