"""What is counted in the workers: how long tasks ran, how they ended, how much they carried, how fresh the search is.

Celery's signals bring how often and how long; the tasks say what they have done. Imported by every worker
(celeryconfig.imports).
"""

import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import Any

from celery import signals
from sqlalchemy.exc import SQLAlchemyError

import settings
from db import console_queries
from db.outbox import Job
from records import DeadLetter
from tasks import outages, resources
from tasks.app import app
from telemetry import numbers_store
from telemetry.numbers import (
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

# How many messages are asked for their age, and how often at most: about a millisecond each time.
SAMPLE = 50
SAMPLE_SECONDS = 1.0

_began: dict[str, float] = {}
_sampled_at = float("-inf")


@signals.worker_process_init.connect
def worker_began(**_: object) -> None:
    queues = sorted(app.amqp.queues.consume_from)
    numbers_store.begin(*(f"{queue}-worker" for queue in queues))


@signals.worker_process_shutdown.connect
def worker_ends(**_: object) -> None:
    numbers_store.end()


@signals.task_prerun.connect
def task_began(task_id: str, **_: object) -> None:
    _began[task_id] = time.perf_counter()


@signals.task_postrun.connect
def task_ended(task_id: str, task: Any, state: str | None = None, **_: object) -> None:
    name = task.name.removeprefix("tasks.")
    began = _began.pop(task_id, None)
    if began is not None:
        TALLY.observe(RUNTIME, [time.perf_counter() - began], name)
    TALLY.add(TASKS, 1, name, (state or "unknown").lower())


def persisted(**outcomes: int) -> None:
    """For persist_text: how many records this try is done with, by outcome: "stored", "rejected" or "unchanged"."""
    if any(outcomes.values()):
        TALLY.observe(BATCH_SIZE, [sum(outcomes.values())], "persist_text")
    for outcome, count in outcomes.items():
        if count > 0:
            TALLY.add(PERSISTED, count, outcome)


def dead_letters_noted(letters: Iterable[DeadLetter]) -> None:
    """For record_dead_letters: these are in their table."""
    for reason, count in Counter(letter.reason for letter in letters).items():
        TALLY.add(DEAD_LETTERS, count, reason)


def embedded(message_ids: Iterable[bytes], failed: int, jobs: Iterable[Job]) -> None:
    """For embed_text: the vectors of these messages are stored, and so many messages were marked as failed, for these
    jobs."""
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
            sample_freshness([str(uuid.UUID(bytes=each)) for each in islice(messages, SAMPLE)], jobs)


def sample_freshness(message_ids: Iterable[str], jobs: Iterable[Job]) -> None:
    in_turn = sorted(jobs, key=lambda job: job.id)  # the last job of a message is that of the text that it has now
    queued = {message_id: job.created_at for job in in_turn for message_id in job.message_ids}
    of_these = {message_id: queued[message_id] for message_id in message_ids if message_id in queued}
    try:
        with resources.engine().begin() as connection:
            ages = console_queries.ages(connection, of_these, settings.load().kafka_topic)
    except SQLAlchemyError as error:  # the vectors are stored, whatever becomes of this number
        log.info("freshness not sampled: %s", outages.reason(error))
        return
    TALLY.observe(FRESHNESS, [max(0.0, age) for age in ages])
