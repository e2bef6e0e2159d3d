"""Celery's own lines in the form of all the others (telemetry/logs.py): a worker's, its children's and beat's.

Celery leaves logging alone once its signal `setup_logging` is taken, which an import of this module does.
"""

import contextlib
import logging
import os
import sys
from functools import partial
from typing import Any

import click
from celery import Celery
from celery.signals import setup_logging
from celery.utils.log import get_multiprocessing_logger

import settings
import streams
from telemetry import logs

# They write two lines for each task, and the sweep alone is a task a second, so these lines come at LOG_LEVEL=DEBUG
# only. Flower shows the tasks.
CHATTY = ("celery.beat", "celery.app.trace", "celery.worker.strategy")


def go_by_settings(command: click.Context) -> None:
    """Makes LOG_LEVEL the level of the worker or beat whose options are about to be read, unless its `-l` says another.
    Celery's own is WARNING."""
    level = {"loglevel": settings.load().log_level}
    command.default_map = {"worker": level, "beat": level}


@setup_logging.connect
def log_like_the_rest(loglevel: int | None = None, logfile: str | None = None, **_: object) -> None:
    """Logging is set up by telemetry.logs; Celery, which finds this signal taken, then leaves it alone."""
    logs.set_up(settings.load(), "" if logs.is_named() else "beat", level=loglevel, file=logfile)
    if loglevel is None or loglevel > logging.DEBUG:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    # It logs what each task is given, at DEBUG.
    logging.getLogger("celery.pool").setLevel(logging.INFO)
    children = get_multiprocessing_logger()
    children.handlers[:] = logging.getLogger().handlers
    children.setLevel(logging.ERROR)


def say(said: str, _stream: object = None) -> None:
    """Writes what Celery prints on its way out as lines like the others. It prints in signal handlers, so this takes no
    lock, and raises nothing where it cannot write: a task that is under way would fail of it."""
    for line in said.strip().splitlines():
        record = logging.LogRecord("celery.worker", logging.INFO, "", 0, line.strip(), None, None)
        with contextlib.suppress(OSError):
            os.write(2, f"{logs.formatter(settings.load()).format(record)}\n".encode())


def size_only(_message: object, body: Any) -> str:
    """What is logged of a message that is no task of ours, instead of its beginning."""
    return f"{len(body)} bytes" if isinstance(body, bytes | str) else type(body).__name__


def begin(worker: Any) -> None:
    """Sets up the logging of a worker that starts: it warns and prints before Celery asks for that."""
    from celery.worker.consumer import consumer  # only a worker needs it

    streams.lose_what_cannot_be_written()
    consumer.dump_body = size_only
    logs.name_process(worker.hostname)
    logs.set_up(settings.load())
    if settings.load().log_format == "json":
        worker.quiet = True  # no banner
        sys.modules["celery.apps.worker"].safe_say = say  # type: ignore[attr-defined]


class Application(Celery):  # type: ignore[misc]
    @property
    def Beat(self) -> Any:  # noqa: N802 - Celery's own name
        """Beat, without the banner that it prints if every line is to be a JSON object."""
        beat = self.subclass_with_self("tasks.clock:Beat")
        return partial(silent, beat) if settings.load().log_format == "json" else beat


def silent(beat: Any, **options: Any) -> Any:
    return beat(**{**options, "quiet": True})
