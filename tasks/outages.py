"""What a task does while the database or the broker is away: it comes again after a pause. Tasks of the pipeline do so
as often as it takes; the console's give up after some tries (tasks.actions)."""

import contextlib
import logging
from typing import Any

from celery import Task

from db import session
from redis_keys import REFUSED, REFUSED_SECONDS
from tasks.broker import BROKER_ERRORS

log = logging.getLogger(__name__)

REFUSED_TRIES = 4  # some four seconds: a restart of PostgreSQL or a deadlock is over by then


class Outage(Exception):
    """The database or the broker is away: to be tried again. Counts as no attempt of an embedding job."""


class Refused(Outage):
    """The database does not store what it is given."""


def reason(error: Exception) -> str:
    """What the database said, in a line of at most 500 characters."""
    return session.first_line(error)[:500]


def retry(task: Task, outage: Outage, **kwargs: Any) -> Exception:
    """Sends the task once more after a pause, with these keyword arguments; the caller raises what it returns.

    The attempt's number makes each RETRY result differ from the one before: so the bridge sees that somebody is at it.
    """
    attempt = task.request.retries
    if attempt in (0, 10) or attempt % 100 == 0:
        log.warning("%s: away, trying again (%d): %s", task.name, attempt, outage)
    if attempt >= REFUSED_TRIES and isinstance(outage, Refused):
        with contextlib.suppress(*BROKER_ERRORS):  # the task is sent there too, and says so
            task.app.backend.client.set(REFUSED, str(outage), ex=REFUSED_SECONDS)
    again: Exception = task.retry(
        exc=Outage(f"{outage} ({attempt})"),
        kwargs=kwargs,
        countdown=backoff(attempt),
        throw=False,
        queue=task.request.delivery_info["routing_key"],
        argsrepr=task.request.argsrepr,
        kwargsrepr="{}",
    )
    return again


def backoff(attempt: int) -> float:
    """Seconds to wait before the next try after an outage: 0.25, 0.5, 1, then 2, so that work is back soon after it."""
    return min(2.0, 0.25 * float(2 ** min(attempt, 8)))
