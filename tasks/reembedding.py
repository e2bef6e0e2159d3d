"""The driver of a change to another model: a thread beside the sweep that feeds the second set's jobs, and switches.

What a step does stands in db.second_set. Each is a transaction of its own, so the thread may end with its process at
any point, and any other process goes on.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

import settings
from db import reembedding, second_set, session
from db.outbox import SECOND_JOB
from db.reembedding import Change
from db.second_set import SecondWaiting
from embedder import EmbedderUnavailable, ModelError
from portions import portions
from settings import InvalidSetting, Settings
from tasks import resources
from tasks.broker import BROKER_ERRORS, BULK_PRIORITY, length_at_priority
from tasks.chain import send_jobs
from tasks.outages import reason

log = logging.getLogger(__name__)

# The sweep wakes the thread once a second.
TURN_SECONDS = 0.9
PAUSE_SECONDS = 0.05
# Its tasks may take one in so many places of the queue: enough for workers to find their next one, too few for the
# sweep to stand back.
QUEUE_SHARE = 8
# The least time from closing to the switch: the search APIs load the new model meanwhile.
CLOSING_SECONDS = 2.0
# More messages than these pile up only if the new model does not work: then new messages no longer wait for it.
PILED_UP = 2_000

Tasks = list[tuple[list[int], int]]


class Driver:
    """The one thread of this process."""

    thread: threading.Thread | None = None


def wake() -> None:
    if Driver.thread is None or not Driver.thread.is_alive():
        Driver.thread = threading.Thread(target=turn, name="reembedding", daemon=True)
        Driver.thread.start()


def turn() -> None:
    """Takes steps until the sweep comes again, or until there is nothing to do."""
    until = time.monotonic() + TURN_SECONDS
    try:
        with resources.side_engine().begin() as connection:
            if reembedding.present(connection) is None:
                return
        while step(settings.load()) and time.monotonic() < until:
            time.sleep(PAUSE_SECONDS)
    except (SQLAlchemyError, psycopg2.Error) as error:
        if session.is_outage(error):
            log.warning("the change of the model waits, database away: %s", reason(error))
        else:
            log.error("the change of the model waits", exc_info=error)
    except BROKER_ERRORS as error:
        log.warning("the change of the model waits, broker away: %s", error)


def step(config: Settings) -> bool:
    """Takes one step; returns whether the next one may follow at once."""
    room = max(1, config.embed_queue_max // QUEUE_SHARE) - length_at_priority("embed", BULK_PRIORITY)
    found: Tasks = []
    with resources.side_engine().begin() as connection:
        change = reembedding.locked(connection)
        if change is None or change.state in ("stopped", "switched"):
            return False
        if change.state == "dropping":
            if not second_set.drop_piece(connection, change):
                log.info("the vectors of %s are deleted", change.model)
            return True
        if room > 0:
            found = next_tasks(connection, change, config, room)
        if change.state == "running":
            if change.scanned and not second_set.waiting(connection, change.model):
                if not second_set.is_indexed(connection, change.model, config):
                    return False  # once a second is enough: a look reads some ten thousand vectors, beside the build
                log.info("all vectors of %s are there", change.model)
                second_set.set_closing(connection, closing=True)
        elif second_set.waiting(connection, change.model) > PILED_UP:
            second_set.set_closing(connection, closing=False)
        elif change.seconds > CLOSING_SECONDS and second_set.switch(connection, change):
            log.info("the active model is %s now", change.model)
    # Committed first: a worker must find what it is sent.
    send_jobs(found, model=change.model, priority=BULK_PRIORITY if change.state == "running" else 0)
    return True


def next_tasks(connection: Connection, change: Change, config: Settings, room: int) -> Tasks:
    """Up to about `room` tasks as (job ids, number of their messages)."""
    jobs = second_set.take(connection, change.model, messages=room * SECOND_JOB, seconds=config.embed_lease_seconds)
    if not jobs and not change.scanned and change.state == "running":
        second_set.scan(connection, change)
        jobs = second_set.take(connection, change.model, messages=room * SECOND_JOB, seconds=config.embed_lease_seconds)
    return short_tasks(jobs)


def short_tasks(jobs: Sequence[SecondWaiting]) -> Tasks:
    """Jobs put together so that a task is not longer than one large job."""
    cut = portions(((job.weight for job in jobs), SECOND_JOB), ((job.length for job in jobs), second_set.JOB_BYTES))
    grouped = [jobs[portion] for portion in cut]
    return [([job.id for job in group], sum(job.messages for job in group)) for group in grouped]


@contextmanager
def noted_for(model: str | None) -> Iterator[None]:
    """Has GET /status say what keeps the second set from being made; the error goes on its way. For None, nothing."""
    try:
        yield
    except (ModelError, InvalidSetting, EmbedderUnavailable) as error:
        if model is not None:
            with resources.engine().begin() as connection:
                reembedding.note_problem(connection, model, f"{type(error).__name__}: {error}")
        raise
