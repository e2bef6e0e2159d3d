"""What the console's buttons do: replay and drop dead letters, retry failed embeddings. The APIs' role cannot write.

A task does a small piece and sends itself again with the same id for the next one, because these run beside
persist_text, which must not wait for a hundred thousand replays. Its result says how far it is; all of it may be
repeated without harm.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from celery import Task
from celery.exceptions import Ignore
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

import settings as configuration
import task_names
from db import console_commands, dead_letter_queries, dead_letters, session
from tasks import resources
from tasks.app import app
from tasks.outages import Outage, backoff, reason

if TYPE_CHECKING:  # kafka-python would take 0.2 s of each start and 8 MB of each worker, and only a replay needs it
    from replay.reading import Unread
    from tasks.second_try import Key, Tried

log = logging.getLogger(__name__)

Found = TypeVar("Found")

REPLAY_PIECE = 100
WRITE_PIECE = 5_000
SHOWN_PROBLEMS = 5
TRIES = 8  # with pauses of up to 2 s: who pressed the button is still looking


@app.task(bind=True, name=task_names.REPLAY_DEAD_LETTERS, max_retries=TRIES)
def replay_dead_letters(
    self: Task,
    *,
    keys: list[Key] | None = None,
    why: str | None = None,
    until: str | None = None,
    cursor: str | None = None,
    done: dict[str, Any] | None = None,
    unread: list[Unread] | None = None,
) -> dict[str, Any]:
    """Sends dead letters to their topic again: those of `keys` (topic, partition, offset), or all with the reason `why`
    (None: any) that were noted up to `until` (None: when the task is first tried).

    Returns {"sent", "failed", "problems": [...]}. A letter stays open until its record was stored.

    If a search for copies takes more than its turn, the task comes again for these letters with what it has not read
    yet, before it goes on behind the cursor.
    """
    from tasks import second_try

    config = configuration.load()
    done = done or {"sent": 0, "failed": 0, "problems": []}

    def one_piece(until: str) -> tuple[Tried, str | None]:
        with resources.engine().begin() as connection:
            if keys is not None:
                rows, following = dead_letter_queries.by_key(connection, keys), cursor
            else:
                rows, following = dead_letter_queries.open_until(
                    connection, reason=why, until=until, cursor=cursor, limit=REPLAY_PIECE
                )
        tried = second_try.send_again(config, rows, unread)
        for key in set(map(tuple, keys or ())) - {second_try.key_of(row) for row in rows}:
            tried.problems.append(f"{key[0]}:{key[1]}:{key[2]}: there is no such dead letter")
        done["sent"] += tried.sent
        done["failed"] += len(tried.problems)
        done["problems"] = (done["problems"] + tried.problems)[:SHOWN_PROBLEMS]
        return tried, following

    (tried, following), until = patiently(self, until, one_piece)
    if tried.sought:
        rest = {"keys": tried.sought, "unread": tried.unread, "cursor": following}
        raise go_on(self, done, why=why, until=until, done=done, **rest)
    if following is not None:
        raise go_on(self, done, why=why, until=until, cursor=following, done=done)
    return done


@app.task(bind=True, name=task_names.DROP_DEAD_LETTERS, max_retries=TRIES)
def drop_dead_letters(
    self: Task, *, keys: list[Key] | None = None, why: str | None = None, until: str | None = None, dropped: int = 0
) -> dict[str, Any]:
    """Marks dead letters as dropped, chosen as above. Returns {"dropped"}; their records stay in Kafka."""

    def one_piece(connection: Connection, until: str) -> int:
        if keys is not None:
            return dead_letters.set_state(connection, keys, "dropped")
        return dead_letters.drop(connection, reason=why, until=until, limit=WRITE_PIECE)

    count, until = patiently(self, until, lambda until: in_transaction(one_piece, until))
    if keys is None and count == WRITE_PIECE:
        so_far = dropped + count
        raise go_on(self, {"dropped": so_far}, why=why, until=until, dropped=so_far)
    return {"dropped": dropped + count}


@app.task(bind=True, name=task_names.RETRY_FAILURES, max_retries=TRIES)
def retry_failures(
    self: Task, *, ids: list[str] | None = None, until: str | None = None, queued: int = 0
) -> dict[str, Any]:
    """Queues failed embeddings again: those of the messages `ids`, or all that failed up to `until`. Returns
    {"queued"}."""

    def one_piece(connection: Connection, until: str) -> int:
        return console_commands.retry_failures(connection, ids, until=until, limit=WRITE_PIECE)

    count, until = patiently(self, until, lambda until: in_transaction(one_piece, until))
    if ids is None and count == WRITE_PIECE:
        raise go_on(self, {"queued": queued + count}, until=until, queued=queued + count)
    return {"queued": queued + count}


def in_transaction(work: Callable[..., Found], *given: object) -> Found:
    with resources.engine().begin() as connection:
        return work(connection, *given)


def patiently(task: Task, until: str | None, work: Callable[[str], Found]) -> tuple[Found, str]:
    """The result of the work on what was there at `until` (None: now), and that moment. During an outage the task comes
    again, up to TRIES times, and then fails with what the outage said.

    It comes again with the same moment, or it would reach what was noted meanwhile, which nobody has seen.
    """
    try:
        until = until or in_transaction(console_commands.now)
        return work(until), until
    except (SQLAlchemyError, Outage) as error:
        if isinstance(error, SQLAlchemyError) and not session.is_outage(error):
            raise
        said = reason(error)
    log.warning("%s: away: %s", task.name, said)
    raise task.retry(
        exc=Outage(said),
        countdown=backoff(task.request.retries),
        kwargs={**task.request.kwargs, "until": until},
    )


def go_on(task: Task, so_far: dict[str, Any], **following: Any) -> Ignore:
    """Tells how far the task is, and sends it again for the next piece under its own id. Returns what the task
    raises then, so that Celery stores no result over what was told."""
    task.update_state(state="PROGRESS", meta=so_far)
    app.send_task(task.name, kwargs=following, task_id=task.request.id, argsrepr="()", kwargsrepr="{next piece}")
    return Ignore()
