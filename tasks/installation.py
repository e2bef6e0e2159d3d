"""One Redis database serves one installation: a worker does not take tasks that were meant for another PostgreSQL.

Queues have the same names everywhere, so a worker that shares Redis with another installation would store that one's
texts in its own database, and that one's bridge would commit their offsets: they would be missing there without a
word. While workers live, the name of their database stands in Redis. One of another database waits until they are
gone, and ends if they stay.

So a second installation does not come up on the Redis of the first. Its bridge does not ask, as it knows no database:
started by itself it would send its records to the first one's workers.
"""

import contextlib
import logging
import os
import signal
import threading
import time
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

import settings
from db import session
from redis_keys import DATABASE
from telemetry import numbers_store

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
# Who has said nothing for so long is gone.
SILENT_SECONDS = 15
# So long after a stop another database may follow, as where somebody moves this installation to one.
PATIENCE_SECONDS = SILENT_SECONDS + 5.0

# So often PostgreSQL is asked for it again: a new worker has to see the others follow within its patience.
NAME_SECONDS = 10.0
# The same for all workers of a database, whatever address each of them has for it.
NAME = text("SELECT system_identifier || '/' || current_database() FROM pg_control_system()")


def database_name() -> str | None:
    """What tells this installation's database from any other, but for a physical copy of the server; None while
    PostgreSQL is away, and if it does not say."""
    engine = session.connect_engine(settings.load().database_url(), "worker, at its start", autocommit=True)
    try:
        with engine.connect() as connection:
            return str(connection.execute(NAME).scalar_one())
    except SQLAlchemyError:
        return None
    finally:
        engine.dispose()


def other_at_work(client: redis.Redis, own: str) -> str | None:
    """Says that this database is at work, or else returns the name of another one that is. Raises RedisError."""
    client.set(DATABASE, own, nx=True, ex=SILENT_SECONDS)
    found = client.get(DATABASE)
    if found == own:
        client.expire(DATABASE, SILENT_SECONDS)
    return str(found) if found not in (own, None) else None


class Installation(bootsteps.StartStopStep):  # type: ignore[misc]
    """Runs before the worker takes its first task, and then in a thread of its main process."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.ended = threading.Event()
        self.database: str | None = None
        self.client = numbers_store.connect(settings.load().redis_address)

    def start(self, worker: Any) -> None:
        until = time.monotonic() + PATIENCE_SECONDS
        while (other := self.look()) is not None:
            if time.monotonic() > until:
                log.critical("%s", refusal(other))
                raise SystemExit(1)
            state.maybe_shutdown()  # raises what a signal has asked for
            self.ended.wait(1.0)
        threading.Thread(target=self.watch, name="installation", daemon=True).start()

    def look(self) -> str | None:
        """The other database that is at work, if one is, as far as PostgreSQL and Redis can be asked."""
        self.database = self.database or database_name()
        try:
            return other_at_work(self.client, self.database) if self.database else None
        except redis.RedisError:
            return None

    def watch(self) -> None:
        """Says again and again that this database is at work. Who could not be asked at the start may answer now."""
        asked_at = time.monotonic()
        while not self.ended.wait(LOOK_SECONDS):
            other = self.look()
            if other is not None or time.monotonic() - asked_at > NAME_SECONDS:
                asked_at = time.monotonic()
                if (name := database_name()) is None:
                    continue  # the other one may be what this one has become
                self.follow(name)
                other = self.look()
            if other is not None:
                log.critical("%s", refusal(other))
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def follow(self, name: str) -> None:
        """Takes over the name of a database that was restored elsewhere, behind the address of the settings."""
        if name == self.database:
            return
        with contextlib.suppress(redis.RedisError):
            if self.client.get(DATABASE) == self.database:
                self.client.set(DATABASE, name, ex=SILENT_SECONDS)
        self.database = name

    def stop(self, worker: Any) -> None:
        self.ended.set()


def refusal(other: str) -> str:
    return (
        f"workers of another installation, with the database {other.partition('/')[2]}, take tasks from this Redis "
        f"database: give each installation one of its own, by the number at the end of REDIS_URL"
    )
