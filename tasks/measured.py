"""What is counted in the workers: how long tasks ran, how they ended, how much they carried, how fresh the search is.

Celery's signals bring most of it, so the tasks need not know; only embed_text says what it has stored. Imported by
every worker and beat (celeryconfig.imports).
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

from celery import signals, states
from sqlalchemy.exc import SQLAlchemyError

import tasks
from db import console_queries
from records import DeadLetter
from tasks import numbers_store, resources
from tasks.app import app
from tasks.numbers import (
    BATCH_SIZE,
    DEAD_LETTERS,
    EMBEDDED,
    EMBEDDING_FAILURES,
    FRESHNESS,
    PERSISTED,
    RUNTIME,
    TALLY,
    TASKS,
)

log = logging.getLogger(__name__)

# Of how many messages the age is asked, and how often at most: about a millisecond each time.
SAMPLE = 50
SAMPLE_SECONDS = 1.0

_began: dict[str, float] = {}
_sampled_at = float("-inf")


@signals.worker_process_init.connect
def worker_began(**_: object) -> None:
    queues = sorted(app.amqp.queues.consume_from)
    numbers_store.begin(f"{','.join(queues)}-worker")


@signals.beat_init.connect
def beat_began(**_: object) -> None:
    numbers_store.begin("beat")


@signals.worker_process_shutdown.connect
def worker_ends(**_: object) -> None:
    numbers_store.end()


@signals.task_prerun.connect
def task_began(task_id: str, **_: object) -> None:
    _began[task_id] = time.perf_counter()


@signals.task_postrun.connect
def task_ended(
    task_id: str,
    task: Any,
    args: list[Any],
    kwargs: dict[str, Any] | None = None,
    retval: object = None,
    state: str | None = None,
    **_: object,
) -> None:
    name = task.name.removeprefix("tasks.")
    began = _began.pop(task_id, None)
    if began is not None:
        TALLY.observe(RUNTIME, [time.perf_counter() - began], name)
    TALLY.add(TASKS, 1, name, (state or "unknown").lower())
    if state == states.SUCCESS and task.name in CARRIED:
        CARRIED[task.name](args, kwargs or {}, retval)


def persisted(args: list[Any], kwargs: dict[str, Any], retval: Any) -> None:
    """What waited for a lock and came again is counted when it was done at last."""
    (records,) = args
    done = len(kwargs.get("waiting") or records)
    stored, rejected = retval["stored"], len(retval["rejected"])
    TALLY.observe(BATCH_SIZE, [len(records)], "persist_text")
    for outcome, count in (
        ("stored", stored),
        ("rejected", rejected),
        ("unchanged", done - stored - rejected),
    ):
        if count > 0:
            TALLY.add(PERSISTED, count, outcome)


def dead_letters_noted(args: list[Any], _kwargs: object, _retval: object) -> None:
    (letters,) = args
    for reason, count in Counter(letter[REASON] for letter in letters).items():
        TALLY.add(DEAD_LETTERS, count, reason)


def embedded(message_ids: Iterable[bytes], failed: int) -> None:
    """For embed_text: the vectors of these messages are stored, and so many messages were marked as failed."""
    global _sampled_at
    messages = set(message_ids)
    if messages or failed:
        TALLY.observe(BATCH_SIZE, [len(messages) + failed], "embed_text")
    if failed:
        TALLY.add(EMBEDDING_FAILURES, failed)
    if messages:
        TALLY.add(EMBEDDED, len(messages))
        if time.monotonic() - _sampled_at >= SAMPLE_SECONDS:
            _sampled_at = time.monotonic()
            sample_freshness([str(uuid.UUID(bytes=each)) for each in islice(messages, SAMPLE)])


def sample_freshness(message_ids: list[str]) -> None:
    try:
        with resources.engine().begin() as connection:
            ages = console_queries.ages(connection, message_ids)
    except SQLAlchemyError as error:  # the vectors are stored, whatever becomes of this number
        log.info("freshness not asked: %s", type(error).__name__)
        return
    TALLY.observe(FRESHNESS, [max(0.0, age) for age in ages])


REASON = DeadLetter._fields.index("reason")
CARRIED: dict[str, Callable[[list[Any], dict[str, Any], Any], None]] = {
    tasks.PERSIST_TEXT: persisted,
    tasks.RECORD_DEAD_LETTERS: dead_letters_noted,
}
