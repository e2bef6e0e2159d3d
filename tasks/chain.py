"""embed_text tasks for jobs of the outbox: how many messages each takes, which priority it has, and when to leave the
jobs to the sweep instead."""

import logging
import math
import time
from collections.abc import Mapping, Sequence

import settings
import task_names
from db.outbox import Job, Waiting
from portions import portions
from tasks.app import app
from tasks.broker import BROKER_ERRORS, BULK_PRIORITY, length_at_priority, queue_length, said_of

log = logging.getLogger(__name__)

SMALL = 50  # messages; a job of more came in bulk
SENT = "sent"  # the header of an embed_text task that says since when its job may be held


def low_water(config: settings.Settings) -> int:
    """Half of what the queue may hold: only where no more wait does the sweep fill it up, and only so far does another
    task send on what it has left."""
    return config.embed_queue_max // 2


def embed_queue_has_room(messages: int) -> bool:
    """Whether to chain the tasks of so many messages. If the queue is long, their jobs wait in PostgreSQL and the sweep
    feeds them in. For a bulk batch the bulk tasks that wait already count too. Workers that look at the same moment may
    exceed the limit, by one batch each. An empty queue has room for any batch."""
    config = settings.load()
    try:
        waiting = queue_length("embed") if messages > SMALL else length_at_priority("embed", 0)
    except BROKER_ERRORS:
        return False
    return not waiting or waiting + math.ceil(messages / config.embed_task_messages) <= config.embed_queue_max


def chain_embedding(
    jobs: Mapping[int, Sequence[str]],
    texts: Mapping[str, str],
    held: Mapping[int, str] | None = None,
    began: float | None = None,
) -> None:
    """Sends embed_text for the jobs of stored messages, with their texts, so that it need not read them. If that fails,
    or the message is lost, the sweep finds the jobs when their reservation has run out. Each of the `held` jobs gets a
    task of its own, with its lease, which is no older than `began`, in seconds since 1970."""
    held = held or {}
    new = [Waiting(job, len(messages), len(messages)) for job, messages in jobs.items() if job not in held]
    alone = [([job], 0) for job in held]
    try:
        for ids, _ in alone + grouped_by_messages(new, settings.load().embed_task_messages):
            messages = [message_id for job in ids for message_id in jobs[job]]
            handed = {message_id: texts[message_id] for message_id in messages if message_id in texts}
            app.send_task(
                task_names.EMBED_TEXT,
                args=[ids, handed],
                kwargs={"held": held[ids[0]]} if ids[0] in held else {},
                headers={SENT: began or time.time()},
                argsrepr=f"({len(handed)} texts)",
                kwargsrepr="{}",
            )
    except BROKER_ERRORS as error:
        log.warning("could not chain the embedding, left to the sweep: %s", said_of("embed", error))


def free_places() -> int:
    """How many tasks a task may send to the queue: as many as fit its half, since the other half is the sweep's. 0
    while the broker is away."""
    try:
        queued = queue_length("embed")
    except BROKER_ERRORS:
        return 0
    return max(0, low_water(settings.load()) - queued)


def send_on(groups: Sequence[Sequence[Job]]) -> None:
    """Sends a task for each group of jobs that another task has left and reserved, with the bulk priority, so that
    short ones go first. If that fails, the sweep finds the jobs when their reservation has run out."""
    try:
        send_jobs(
            [([job.id for job in jobs], sum(len(job.message_ids) for job in jobs)) for jobs in groups],
            priority=BULK_PRIORITY,
        )
    except BROKER_ERRORS as error:
        log.warning("could not send on what a task has left, left to the sweep: %s", error)


def grouped_by_messages(waiting: Sequence[Waiting], most: int) -> list[tuple[list[int], int]]:
    """Groups jobs into tasks of up to `most` messages by their weight; returns (job ids, number of messages) pairs."""
    grouped = [waiting[portion] for portion in portions(((job.weight for job in waiting), most))]
    return [([job.id for job in group], sum(job.messages for job in group)) for group in grouped]


def send_jobs(groups: Sequence[tuple[list[int], int]], *, priority: int, model: str | None = None) -> None:
    """Sends a task for each of these (job ids, number of their messages), whose texts the worker reads itself. `model`
    is that of the jobs if it is not the active one."""
    for jobs, messages in groups:
        app.send_task(
            task_names.EMBED_TEXT,
            args=[jobs],
            kwargs={} if model is None else {"model": model},
            argsrepr=f"({messages} messages)",
            kwargsrepr="{}" if model is None else f"{{model: {model}}}",
            priority=priority,
        )
