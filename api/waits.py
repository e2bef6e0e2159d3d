"""An end to every wait for PostgreSQL.

A server that stops without closing its connections never says anything again, and no time-out of its own fires;
psycopg2 lets the process that waits keep the time instead.
"""

import select
import time

import psycopg2
from psycopg2 import extensions

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 6.0  # the server ends a statement of the APIs after 5 (api.parts)


def bound() -> None:
    """For the whole process, from now on. COPY is then impossible, so this is for the APIs' own processes only."""
    extensions.set_wait_callback(wait)


def wait(connection: extensions.connection) -> None:
    """Returns when libpq has what it waits for. Raises OperationalError after the time, which closes the connection."""
    connecting = connection.status == extensions.STATUS_SETUP
    deadline = time.monotonic() + (CONNECT_SECONDS if connecting else ANSWER_SECONDS)
    poller = select.poll()
    watched = None
    while (state := connection.poll()) != extensions.POLL_OK:
        # The socket is another one for each address that libpq tries.
        if watched is not None:
            poller.unregister(watched)
        watched = connection.fileno()
        poller.register(watched, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise psycopg2.OperationalError("PostgreSQL does not answer")
