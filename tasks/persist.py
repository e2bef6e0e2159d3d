"""Storing records, and noting dead letters. A task here is idempotent: it may run twice, late, or after a newer one."""

import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg2
from celery import Task
from sqlalchemy.exc import SQLAlchemyError

import settings
import task_names
from db import commands, dead_letters, outbox, session
from records import DeadLetter, Record
from tasks import measured, resources
from tasks.app import app
from tasks.chain import chain_embedding, embed_queue_has_room
from tasks.outages import Outage, Refused, reason, retry
from telemetry import logs

log = logging.getLogger(__name__)

Rejected = tuple[int, str]  # place in the batch, what the database said

# A row that was locked before is waited for only briefly, so that its neighbours are not kept waiting each time.
ROW_LOCK_AGAIN_MS = 100
# How often a task waits for a lock; its next try takes what is left then, so that the worker gets to other tasks.
LOCK_WAITS = 20
# How many records a task finds to be refused, each by half a dozen transactions or more: a second or a few.
REFUSALS = 50


@dataclass
class Outcome:
    """What became of the records of a batch, by their places in it. Those `done` were stored, now or before, or
    `rejected` by the database; of those `locked` somebody holds the rows, or the task has waited enough."""

    jobs: dict[int, list[str]] = field(default_factory=dict)  # each with the ids of its messages
    held: dict[int, str] = field(default_factory=dict)  # jobs that need not be claimed, each with its lease
    texts: dict[str, str] = field(default_factory=dict)  # of the messages that were written, by their ids
    to_read: set[str] = field(default_factory=set)  # those of them whose texts are not handed on: others are stored
    done: set[int] = field(default_factory=set)
    sessions: list[object] = field(default_factory=list)  # of the server, in which records were stored or found stored
    rejected: list[Rejected] = field(default_factory=list)
    locked: list[int] = field(default_factory=list)
    lock_waits: int = 0
    refusals: int = 0  # of this try
    put_off: int = 0  # records that are for the next try, after so many refusals


class Expecting(threading.local):
    """What the next batch most likely brings: new messages, if the last one did; else edits, or records once more."""

    new = True


expecting = Expecting()


@app.task(bind=True, name=task_names.PERSIST_TEXT, max_retries=None)
def persist_text(
    self: Task, records: list[list[Any]], waiting: list[int] | None = None, rejected: list[Rejected] | None = None
) -> dict[str, Any]:
    """Stores the records of one hand-over, and chains the embedding of what was written.

    `records` are Records as lists. Returns {"stored": rows written, "rejected": [[place, detail], ...]}: the rejected
    are those that the database refuses for what they hold. They are found by halving, and their neighbours are stored.
    When it retries itself after some were done, `waiting` are the places of the others, and `rejected` what was refused
    before.
    """
    began = time.time()
    places = range(len(records)) if waiting is None else waiting
    batch = {place: Record._make(records[place]) for place in places}
    chained = embed_queue_has_room(len(batch))
    reserved = settings.load().embed_lease_seconds if chained else None
    outcome = Outcome(rejected=list(rejected or []))
    outage: Outage | None = None
    try:
        if waiting is None:
            store_or_halve(batch, outcome, reserved, commands.ROW_LOCK_MS)
        else:
            store_unlocked(batch, outcome, reserved)
        if outcome.locked:
            raise Outage(f"{len(outcome.locked)} rows are locked by somebody's transaction")
        if outcome.put_off:
            raise Outage(f"{outcome.refusals} records were refused, and {outcome.put_off} are looked at later")
    except Outage as error:
        outage = error
    finally:  # also for a batch that was stored in part
        if outcome.jobs:
            chain_embedding(outcome.jobs, texts_to_hand_on(outcome), outcome.held, began)
        logs.each(log, "stored", batch.values(), settings.load().kafka_topic, only=outcome.texts)
    try:
        if outcome.done:
            make_durable(outcome.sessions)
    except Outage as error:  # a crash may have undone a part of it, so all of it is stored once more
        given = {} if waiting is None else {"waiting": waiting, "rejected": rejected}
        raise retry(self, error, **given) from error
    stored, refused = len(outcome.texts), len(outcome.rejected) - len(rejected or [])
    measured.persisted(stored=stored, rejected=refused, unchanged=len(outcome.done) - stored - refused)
    if outage is not None:
        left = [place for place in places if place not in outcome.done]
        is_less = outcome.locked or len(left) < len(records)
        kwargs = {"waiting": left, "rejected": outcome.rejected} if is_less else {}
        raise retry(self, outage, **kwargs) from outage
    return {"stored": stored, "rejected": outcome.rejected}


def texts_to_hand_on(outcome: Outcome) -> dict[str, str]:
    if not outcome.to_read:
        return outcome.texts
    return {message_id: text for message_id, text in outcome.texts.items() if message_id not in outcome.to_read}


def queued_twice(jobs: Iterable[Sequence[str]]) -> set[str]:
    """The messages that several of the jobs have."""
    times = Counter(message_id for messages in jobs for message_id in messages)
    return {message_id for message_id, count in times.items() if count > 1}


def make_durable(sessions: Sequence[object]) -> None:
    """Waits until what was committed in these sessions is on the disk: the commits did not wait, so that embedding
    could begin. Nothing may be reported as done before. Raises Outage, also if one of the sessions is over: a crash of
    the server ends them all, and a later session would only wait for what has survived it."""
    try:
        with session.autocommit_connection(resources.engine()) as connection:
            if any(each is not session.driver_of(connection) for each in sessions):
                raise Outage("the session that stored it is over, and what it stored may be gone")
            commands.make_durable(connection)
    except (SQLAlchemyError, psycopg2.Error) as error:
        raise Refused(reason(error)) from error


def store_or_halve(batch: Mapping[int, Record], outcome: Outcome, reserved: float | None, row_lock_ms: int) -> None:
    """Stores records, by their place in the batch: all at once, except those whose rows somebody holds; or in halves,
    if one is refused or all together take longer than a statement may.

    Raises Outage, with some of them perhaps stored.
    """
    try:
        store_all_or_none(batch, outcome, reserved, row_lock_ms)
    except commands.RowsLocked:
        locked = set_aside(batch, outcome)
        if not locked:
            store_halves(batch, outcome, reserved, ROW_LOCK_AGAIN_MS)
        elif rest := {place: record for place, record in batch.items() if place not in locked}:
            store_or_halve(rest, outcome, reserved, ROW_LOCK_AGAIN_MS)
    except (SQLAlchemyError, psycopg2.Error, ValueError) as error:
        is_outage = session.is_outage(error)
        if is_outage and not (session.was_canceled(error) and len(batch) > 1):  # fewer records may be in time
            raise Refused(reason(error)) from error
        if len(batch) > 1:
            store_halves(batch, outcome, reserved, row_lock_ms)
        else:
            reject(batch, outcome, error)


def store_unlocked(batch: Mapping[int, Record], outcome: Outcome, reserved: float | None) -> None:
    """As `store_or_halve`, for records that were put off: most likely their rows are locked. That is asked first, so
    that the worker does not wait for them at each try. Raises Outage."""
    locked = locked_places(batch)
    outcome.locked += sorted(locked)
    if free := {place: record for place, record in batch.items() if place not in locked}:
        store_or_halve(free, outcome, reserved, ROW_LOCK_AGAIN_MS)


def store_all_or_none(batch: Mapping[int, Record], outcome: Outcome, reserved: float | None, row_lock_ms: int) -> None:
    """Stores all of the records or none. Raises what the database raises, and RowsLocked."""
    records = list(batch.values())
    job_messages = settings.load().embed_task_messages
    lease = None if reserved is None else str(uuid.uuid4())
    with session.autocommit_connection(resources.engine()) as connection:
        driver: object = session.driver_of(connection)
        stored = commands.persist_few(
            connection, records, reserved_seconds=reserved, job_messages=job_messages, lease=lease
        )
    if stored is None:
        stored, driver = store_guessing_new(
            records,
            expect_new=expecting.new,
            reserved_seconds=reserved,
            row_lock_ms=row_lock_ms,
            job_messages=job_messages,
            lease=lease,
        )
    several: dict[int, tuple[list[str], bool]] = {}
    # A message that came again unchanged is in a job all the same if a trigger of somebody's has changed its text.
    if len(stored.jobs) > 1 or stored.unchanged & stored.rewritten:
        with resources.engine().begin() as connection:
            several = outbox.messages_of(connection, stored.jobs, lease)
    # What a trigger of somebody's has changed after it was written is in a second job, or was not to have one.
    rewritten = stored.rewritten | stored.unchanged | queued_twice(messages for messages, _ in several.values())
    outcome.sessions.append(driver)
    expecting.new = stored.all_new
    for job in stored.jobs:
        outcome.jobs[job], is_held = several.get(job, (stored.queued, stored.held))
        if is_held:
            outcome.held[job] = str(lease)
        if rewritten and not rewritten.isdisjoint(outcome.jobs[job]):
            outcome.to_read.update(outcome.jobs[job])  # all, for a held job comes with all of its texts or none
    outcome.texts |= stored.texts
    outcome.done.update(batch)


def store_halves(batch: Mapping[int, Record], outcome: Outcome, reserved: float | None, row_lock_ms: int) -> None:
    places = sorted(batch)
    middle = len(places) // 2
    for half in (places[:middle], places[middle:]):
        if outcome.refusals >= REFUSALS:
            outcome.put_off += len(half)
            continue
        store_or_halve({place: batch[place] for place in half}, outcome, reserved, row_lock_ms)


def reject(batch: Mapping[int, Record], outcome: Outcome, error: Exception) -> None:
    """Notes that the database refuses the one record of a batch."""
    ((place, record),) = batch.items()
    at = {"partition": record.partition, "offset": record.offset, "id": record.id}
    log.warning("rejected by the database: partition %(partition)d offset %(offset)d", at, extra=at)
    outcome.rejected.append((place, reason(error)))
    outcome.refusals += 1
    outcome.done.add(place)


def set_aside(batch: Mapping[int, Record], outcome: Outcome) -> set[int]:
    """Finds the records whose rows somebody holds, adds their places to `outcome.locked` and returns them: none if what
    is held is a new id that is not committed yet, or if it was let go meanwhile; all if the task has waited enough.

    Raises Outage.
    """
    outcome.lock_waits += 1
    waited_enough = len(batch) == 1 or outcome.lock_waits >= LOCK_WAITS
    locked = set(batch) if waited_enough else locked_places(batch)
    outcome.locked += sorted(locked)
    return locked


def locked_places(batch: Mapping[int, Record]) -> set[int]:
    """The places of the records whose rows another transaction holds. Raises Outage."""
    try:
        with resources.engine().begin() as connection:
            held = commands.locked_messages(connection, [record.id for record in batch.values()])
    except SQLAlchemyError as error:
        raise Outage(reason(error)) from error
    return {place for place, record in batch.items() if record.id in held}


def store_guessing_new(
    records: Sequence[Record], *, expect_new: bool, **options: Any
) -> tuple[commands.Stored, object]:
    """Stores records in a transaction or, if they were expected to be new and not all are, in a second one; returns the
    session as well."""
    try:
        with resources.engine().begin() as connection:
            stored = commands.persist(connection, records, expect_new=expect_new, **options)
            return stored, session.driver_of(connection)
    except commands.NotNew:
        return store_guessing_new(records, expect_new=False, **options)


@app.task(bind=True, name=task_names.RECORD_DEAD_LETTERS, max_retries=None)
def record_dead_letters(self: Task, letters: list[list[Any]]) -> int:
    """Notes dead letters in their table, each once for its coordinates; returns how many it was given.

    A letter that the table refuses is noted without its contents, which its topic has.
    """
    found = [DeadLetter(*letter) for letter in letters]
    try:
        try:
            note(found)
        except (SQLAlchemyError, ValueError) as error:
            if session.is_outage(error):
                raise
            for letter in found:
                note_alone(letter)
    except SQLAlchemyError as error:
        if not session.is_outage(error):
            raise
        raise retry(self, Refused(reason(error))) from error
    measured.dead_letters_noted(found)
    return len(letters)


def note(letters: list[DeadLetter]) -> None:
    with resources.engine().begin() as connection:
        dead_letters.note(connection, letters)


def note_alone(letter: DeadLetter) -> None:
    try:
        note([letter])
    except (SQLAlchemyError, ValueError) as error:
        if session.is_outage(error):
            raise
        log.error("dead letter noted without its contents: %s", reason(error))
        detail = f"{letter.detail}; its contents could not be noted here: {reason(error)}"
        note([letter._replace(detail=detail.replace("\0", ""), key=None, value=None, headers=[])])
