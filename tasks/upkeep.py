"""What beat asks for: the sweep, which makes certain what the chain makes fast, and the forgetting of old deletions."""

import logging
import time

from sqlalchemy.exc import SQLAlchemyError

import settings
import task_names
from db import commands, outbox, session
from tasks import leases, reembedding, resources
from tasks.app import app
from tasks.broker import BROKER_ERRORS, BULK_PRIORITY, queue_length
from tasks.chain import SMALL, grouped_by_messages, low_water, send_jobs
from tasks.outages import Outage, reason

log = logging.getLogger(__name__)

FORGET_EVERY_SECONDS = 3600
# Sweeps that piled up behind a backlog are one sweep.
SWEEP_AGAIN_SECONDS = 0.3
_forgotten_at = _swept_at = float("-inf")


@app.task(name=task_names.SWEEP, ignore_result=True, send_events=False)  # one a second would fill Flower
def sweep() -> int:
    """Feeds jobs that wait in the outbox to the queue `embed`, as far as it has room; returns how many messages.

    These are rows typed by hand, jobs that a full queue left behind, and those whose worker or message was lost. The
    jobs stay in their table until their vectors are stored, so a sweep that dies half way only delays them.
    """
    global _swept_at
    if time.monotonic() - _swept_at < SWEEP_AGAIN_SECONDS:
        return 0
    _swept_at = time.monotonic()
    reembedding.wake()
    config = settings.load()
    try:
        fed = feed(config)
        forget_deletions(config)
        return fed
    except SQLAlchemyError as error:
        if not session.is_outage(error):
            raise
        log.warning("no sweep, database away: %s", reason(error))
    except BROKER_ERRORS as error:
        log.warning("no sweep, broker away: %s", error)
    return 0


def feed(config: settings.Settings) -> int:
    """Sends the waiting jobs for which the queue has room; returns how many messages they have."""
    queued = queue_length("embed")
    if queued > low_water(config):
        return 0
    room = config.embed_queue_max - queued
    with resources.engine().begin() as connection:
        waiting = outbox.take_waiting_jobs(
            connection,
            messages=room * config.embed_task_messages,
            task=config.embed_task_messages,
            seconds=config.embed_lease_seconds,
            small=SMALL,
            # A job that is in no queue, and that no worker renews, is lost.
            given_up=0.0 if queued else config.embed_lease_seconds * leases.GIVEN_UP,
        )
    # Bulk gives way to what somebody may be waiting for, except for the oldest task of each sweep: a steady flow
    # would otherwise keep the jobs of a worker that died waiting for ever.
    most = config.embed_task_messages
    small = grouped_by_messages([job for job in waiting if job.messages <= SMALL], most)
    oldest, *bulk = grouped_by_messages([job for job in waiting if job.messages > SMALL], most) or [([], 0)]
    send_jobs(small + ([oldest] if oldest[0] else []), priority=0)
    send_jobs(bulk, priority=BULK_PRIORITY)
    return sum(job.messages for job in waiting)


def forget_deletions(config: settings.Settings) -> None:
    """Drops remembered deletions that are older than the log, once an hour; none if the log keeps records for ever, or
    if Kafka does not say how long it does."""
    global _forgotten_at
    if time.monotonic() - _forgotten_at < FORGET_EVERY_SECONDS:
        return
    with resources.engine().begin() as connection:
        is_due = commands.has_old_deletions(connection)
    _forgotten_at = time.monotonic()
    if not is_due:
        return
    from tasks import log_retention

    try:
        log_ms = log_retention.longest_ms(config)
    except Outage as outage:
        log.warning("deletions are all remembered for another hour: %s", outage)
        return
    if log_ms is not None:
        with resources.engine().begin() as connection:
            commands.forget_old_deletions(connection, log_ms)
