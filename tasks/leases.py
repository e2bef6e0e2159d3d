"""Keeping jobs leased while their texts are embedded, however long the model or a remote provider takes."""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

from db import outbox, session
from db.outbox import Job
from tasks import resources
from tasks.outages import reason

log = logging.getLogger(__name__)

# Fractions of a lease. A worker renews its leases every RENEWED, and may begin a held job without a claim until FRESH
# has passed. So a lease that is in use has at least 1 - FRESH - RENEWED left, and one with GIVEN_UP or less has been
# abandoned.
RENEWED, FRESH, GIVEN_UP = 1 / 8, 1 / 4, 1 / 2


class Keeper:
    """Renews leases. One thread does it for all tasks of the process: to start one each time would take a small task a
    twentieth of its time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.lock = threading.Lock()
        self.kept: dict[str, list[int]] = {}
        self.thread: threading.Thread | None = None

    def watch(self) -> None:
        """Starts the thread if this process has none: threads do not survive a fork."""
        if self.thread is None or not self.thread.is_alive():
            self.thread = threading.Thread(target=self.keep, name="leases", daemon=True)
            self.thread.start()

    def keep(self) -> None:
        while True:
            time.sleep(self.seconds * RENEWED)
            with self.lock:  # so that nothing is renewed that has just been given back
                for lease, jobs in list(self.kept.items()):
                    if lease in self.kept:
                        self.renew(lease, jobs)

    def renew(self, lease: str, jobs: Sequence[int]) -> None:
        try:
            with session.autocommit_connection(resources.engine()) as connection:
                outbox.claim_jobs(connection, jobs, lease, self.seconds, counts=False)  # nobody has died
        except (SQLAlchemyError, psycopg2.Error) as error:
            log.warning("lease not renewed: %s", reason(error))


@cache
def keeper(seconds: float) -> Keeper:
    return Keeper(seconds)


@contextmanager
def kept(claimed: Sequence[Job], lease: str, seconds: float) -> Iterator[None]:
    """Renews the lease until it ends."""
    keeping = keeper(seconds)
    with keeping.lock:
        keeping.watch()
        keeping.kept[lease] = [job.id for job in claimed]
    try:
        yield
    finally:
        keeping.kept.pop(lease, None)  # first, as a soft time limit may end the wait for the lock
        with keeping.lock:  # until a renewal that has begun is over
            pass
