"""An end to every wait of the APIs for PostgreSQL, and to all waits of one call together.

A server that stops without closing its connections never says anything again, and its own time-outs do not fire;
psycopg2 lets the process that waits keep the time instead.

The connections of every process, the APIs' too, are also bounded by db.deadline. In the APIs this module comes first,
by two seconds or more, and it bounds connecting and whole calls as well, which db.deadline does not. It cannot replace
db.deadline in the workers, because it excludes COPY, which they need.
"""

import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from math import inf

import psycopg2
from psycopg2 import extensions

CONNECT_SECONDS = 3.0
ANSWER_SECONDS = 6.0  # the server ends a statement of the APIs after 5 (api.parts)
CALL_SECONDS = 10.0

_call = threading.local()


def bound() -> None:
    """Bounds all waits of this process from now on. COPY is impossible then: this is for the APIs' processes only."""
    extensions.set_wait_callback(wait)


@contextmanager
def one_call(more_seconds: float = 0.0) -> Iterator[None]:
    """Bounds the sum of this thread's waits in the block by CALL_SECONDS + `more_seconds`: each may be short and their
    sum not."""
    _call.deadline = time.monotonic() + CALL_SECONDS + more_seconds
    try:
        yield
    finally:
        _call.deadline = inf


@contextmanager
def not_counted() -> Iterator[None]:
    """The time in the block, in which something other than PostgreSQL is waited for, does not count for the call."""
    began = time.monotonic()
    try:
        yield
    finally:
        _call.deadline = getattr(_call, "deadline", inf) + time.monotonic() - began


def wait(connection: extensions.connection) -> None:
    """Returns when libpq has what it waits for. Raises OperationalError at its deadline: that closes the connection."""
    connecting = connection.status == extensions.STATUS_SETUP
    deadline = time.monotonic() + (CONNECT_SECONDS if connecting else ANSWER_SECONDS)
    deadline = min(deadline, getattr(_call, "deadline", inf))
    poller = select.poll()
    watched = None
    while (state := connection.poll()) != extensions.POLL_OK:
        # libpq has a new socket for each address that it tries.
        if watched is not None:
            poller.unregister(watched)
        watched = connection.fileno()
        poller.register(watched, select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise psycopg2.OperationalError("PostgreSQL does not answer")
