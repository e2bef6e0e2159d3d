"""How gunicorn serves the two APIs. It reads this file by itself in the folder where it is started; the address and the
number of workers come from the command line."""

import ctypes
import functools
import os
import shutil
import signal
import socket
import struct
import sys
import tempfile
from typing import Any

from gunicorn import util

import settings
import streams
from api import gunicorn_errors
from telemetry import tracing

worker_class = "gthread"  # a request waits for the database and for Kafka most of its time
threads = 16
# With its own files below the 1,024 that most systems let a process open: a worker that cannot accept one more ends.
worker_connections = 900
graceful_timeout = 10  # what is under way at a stop may go on for so long; a POST waits for POST_WAIT_SECONDS at most
STALL_SECONDS = 10  # after which the rest of a request that has stopped coming is not waited for
UNREAD_SECONDS = 60  # after which an answer of which nothing more is taken is given up
limit_request_line = 8190  # an id of 255 characters may take 3,060 percent-encoded bytes
control_socket_disable = True
logger_class = "api.gunicorn_log.Log"

util.write_error = gunicorn_errors.write_problem
# How long the one thread that takes connections waits for a client to close its own: 2 s would hold up all others.
util.close_graceful = functools.partial(util.close_graceful, timeout=0.05)

PR_SET_PDEATHSIG = 1  # https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
METRICS_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own variable: where workers add up their numbers

try:  # gunicorn's own logger reads them next, and would end in a traceback
    tracing.is_on(settings.load())
except settings.InvalidSetting as error:
    print(f"gunicorn: {error}", file=sys.stderr)
    sys.exit(streams.WRONG_USAGE)


def on_starting(server: Any) -> None:
    for name in (METRICS_DIRECTORY, METRICS_DIRECTORY.lower()):  # another program's: on_exit would remove its numbers
        os.environ.pop(name, None)
    if server.cfg.workers > 1:
        os.environ[METRICS_DIRECTORY] = tempfile.mkdtemp(prefix="api-metrics-")


def when_ready(server: Any) -> None:
    """Sets the longest waits for a client, which connections take over from the socket that listens. gunicorn waits for
    ever, so as many clients as there are threads, gone without a word, would be the end of an API."""
    for listener in server.LISTENERS:
        for wait, seconds in ((socket.SO_RCVTIMEO, STALL_SECONDS), (socket.SO_SNDTIMEO, UNREAD_SECONDS)):
            listener.sock.setsockopt(socket.SOL_SOCKET, wait, struct.pack("ll", seconds, 0))


def post_fork(server: Any, worker: Any) -> None:
    """Has the system end a worker with its master, where it can (Linux). A worker that outlived it would keep the port
    from the next master for up to 20 s, and calls would wait in its backlog."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != server.pid:  # it died in between
            os._exit(1)


def post_worker_init(worker: Any) -> None:
    worker.wsgi.extensions["parts"].begin()


def child_exit(server: Any, worker: Any) -> None:
    if METRICS_DIRECTORY in os.environ:
        # Not at the top: the import settles whether numbers are shared, and the workers inherit what was imported.
        from prometheus_client import multiprocess

        multiprocess.mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]


def on_exit(server: Any) -> None:
    if METRICS_DIRECTORY in os.environ:
        shutil.rmtree(os.environ[METRICS_DIRECTORY], ignore_errors=True)
