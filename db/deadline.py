"""An end to every wait for PostgreSQL's answer, kept by a thread of the waiting process. Knows no engine and no
statement.

libpq waits for ever for a server that has gone silent without closing the connection: the server's own time-outs do not
reach the client then, and TCP's see nothing if a proxy or a paused machine goes on to acknowledge. psycopg2 has a
callback for such waits, but no COPY with it. So the socket is shut down under libpq, which takes that for the server's
leaving. The session is ended at the server too, which does not see its client go while a commit waits for a standby:
each session left so would take one of its connections.

The APIs need no COPY and set that callback as well (api.waits), with shorter limits for callers who wait. There it
comes first; this module, which allows five seconds more than the server allows for a statement, is the second line.
"""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg2
from psycopg2 import extensions

TICK_SECONDS = 0.5
# A server that is silent keeps those who would end a session waiting as well.
ENDINGS_AT_ONCE = 4

_lock = threading.Lock()
_deadlines: dict["BoundedConnection", float] = {}
_thread: threading.Thread | None = None
_endings = threading.Semaphore(ENDINGS_AT_ONCE)


class BoundedConnection(extensions.connection):
    """A connection whose every wait ends after `seconds`, by OperationalError (None: never)."""

    seconds: float | None = 10.0
    refused: str | None = None  # the code of the last error that ended a wait with an end

    def commit(self) -> None:
        with ending_in_time(self):
            super().commit()

    def rollback(self) -> None:
        with ending_in_time(self):
            super().rollback()


class BoundedCursor(extensions.cursor):
    """A cursor whose waits are bounded like its connection's."""

    connection: BoundedConnection

    def execute(self, *arguments: Any, **options: Any) -> None:
        with ending_in_time(self.connection):
            super().execute(*arguments, **options)

    def executemany(self, *arguments: Any, **options: Any) -> None:
        with ending_in_time(self.connection):
            super().executemany(*arguments, **options)

    def copy_expert(self, *arguments: Any, **options: Any) -> None:
        with ending_in_time(self.connection):
            super().copy_expert(*arguments, **options)


@contextlib.contextmanager
def ending_in_time(connection: BoundedConnection) -> Iterator[None]:
    if connection.seconds is None:
        yield
        return
    watch()
    with _lock:
        _deadlines[connection] = time.monotonic() + connection.seconds
    try:
        yield
    except psycopg2.Error as error:
        connection.refused = error.pgcode
        raise
    finally:
        with _lock:
            del _deadlines[connection]


def begin_anew() -> None:
    """For the child of a fork: the waits under way are its parent's, whose thread may have held the lock."""
    global _lock, _thread
    _lock = threading.Lock()
    _thread = None
    _deadlines.clear()


os.register_at_fork(after_in_child=begin_anew)


def watch() -> None:
    """Starts the thread if this process has none."""
    global _thread
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=end_overdue_waits, name="database deadlines", daemon=True)
        _thread.start()


def end_overdue_waits() -> None:
    while True:
        time.sleep(TICK_SECONDS)
        with _lock:
            for connection, deadline in _deadlines.items():
                if time.monotonic() > deadline:
                    cut(connection)


def cut(connection: BoundedConnection) -> None:
    end_session(connection)
    with (
        contextlib.suppress(OSError, psycopg2.Error),  # it has ended meanwhile
        socket.socket(fileno=os.dup(connection.fileno())) as end,
    ):
        end.shutdown(socket.SHUT_RDWR)


def end_session(connection: BoundedConnection) -> None:
    """Not by `connection.cancel`: all threads of the process wait in it, and a commit that is canceled while it waits
    for a standby looks like one that need not."""
    with contextlib.suppress(psycopg2.Error):
        info = connection.info
        where = {**info.dsn_parameters, "password": info.password}
        threading.Thread(
            target=terminate, args=(where, info.backend_pid), name="database session's end", daemon=True
        ).start()


def terminate(where: dict[str, Any], process: int) -> None:
    if not _endings.acquire(blocking=False):
        return
    try:
        with (
            contextlib.suppress(psycopg2.Error),  # the server is away, or takes no connection
            contextlib.closing(psycopg2.connect(**where)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND application_name = %s",
                (process, where.get("application_name")),
            )
    finally:
        _endings.release()
