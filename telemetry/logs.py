"""How every part logs: lines for people, or with LOG_FORMAT=json an object a line. What is logged stands in the parts.

Nobody's text goes into a log, and no foreign character can break a line: an id, a key or an exception may hold any.
"""

import json
import logging
import re
import sys
import threading
import traceback
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from logging import DEBUG, WARNING, Formatter, Handler, Logger, LogRecord, StreamHandler
from logging.handlers import WatchedFileHandler
from types import TracebackType
from typing import Any, Protocol

from records import OBEYED, Record
from settings import Settings

# What a line may know of a record, given as `extra`. `id` is the message's UUID: a source id is its sender's text.
FIELDS = ("topic", "partition", "offset", "id", "task_id")

# Escaped so that a line stays one line: all C0 controls; also halves of surrogate pairs, which no encoding takes.
CONTROLS = re.compile(f"[\x00-\x1f{OBEYED}\ud800-\udfff]")
SAID_CHARS = 500
LINE_CHARS = 20_000

_process = ""


class Place(Protocol):
    """Where something stands in the log."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...


def name_process(name: str) -> None:
    """Gives the name under which this process and its children log, such as bridge-0 or embed@host."""
    global _process
    _process = name


def is_named() -> bool:
    return bool(_process)


def set_up(settings: Settings, process: str = "", *, level: int | str | None = None, file: str | None = None) -> None:
    """Makes all that this process logs go to standard error, or to a file, in the form of the settings."""
    if process:
        name_process(process)
    handler: Handler = WatchedFileHandler(file, encoding="utf-8") if file else StreamHandler()
    handler.setFormatter(formatter(settings))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level or settings.log_level)
    logging.captureWarnings(True)
    # At DEBUG they would log the bytes of what they send.
    logging.getLogger("kafka").setLevel(WARNING)
    sys.excepthook = uncaught
    threading.excepthook = uncaught_in_thread


def formatter(settings: Settings) -> Formatter:
    return JsonLines() if settings.log_format == "json" else TextLines()


def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
    else:
        # Does not say that the process ends: psycopg2's C code calls this too, for an error that it cannot raise.
        logging.getLogger(_process or "process").critical("an error that nothing caught", exc_info=(kind, error, trace))


def uncaught_in_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        told = (ended.exc_type, ended.exc_value, ended.exc_traceback)
        logging.getLogger(_process or "process").error("a thread ended with an error", exc_info=told)


class TextLines(Formatter):
    """For people. What belongs to a line, such as the way to an error, is indented below it."""

    def format(self, record: LogRecord) -> str:
        message = escaped(message_of(record))
        told = [f"{name}={escaped(str(value))}" for name, value in known(record) if str(value) not in message]
        line = f"{self.formatTime(record)} {record.levelname} {record.name}: {message}"
        return "\n".join([line + (f" [{' '.join(told)}]" if told else ""), *(f"    {each}" for each in way(record))])


class JsonLines(Formatter):
    """For machines."""

    def format(self, record: LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC)
            .isoformat(timespec="microseconds")
            .replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": escaped(message_of(record)),
            "process": _process,
            "pid": record.process,
            **dict(known(record)),
        }
        if error := way(record):
            line["error"] = error
        return json.dumps(line, default=str)  # ASCII: whatever a program takes for an end of line is escaped


def escaped(text: str) -> str:
    """The text on one line: unreadable characters are shown by their code, and a very long text is cut."""
    shown = CONTROLS.sub(code, text[: LINE_CHARS + 1])
    return shown if len(text) <= LINE_CHARS else shown[:LINE_CHARS] + "…"


def code(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")


def message_of(record: LogRecord) -> str:
    """What was said; of a task's error one line, since Celery gives all that the exception says, which may quote a
    statement and its values."""
    if isinstance(record.args, Mapping) and "exc" in record.args:
        short = {**record.args, "exc": short_line(str(record.args["exc"]).replace("\\n", "\n"))}
        return str(record.msg) % short
    return record.getMessage()


def known(record: LogRecord) -> Iterable[tuple[str, object]]:
    for name in FIELDS:
        value = getattr(record, name, None)
        if value is None and name == "task_id":
            value = current_task()
        if value is not None:
            yield name, value


def current_task() -> str | None:
    """The id of the task that this thread runs. Celery is asked only if it is loaded."""
    celery = sys.modules.get("celery")
    task = getattr(celery, "current_task", None)
    return str(task.request.id) if task and task.request.id else None


def way(record: LogRecord) -> list[str]:
    """Where an error came from: the calls, and each exception's type and first line, as the rest may quote a text."""
    error = record.exc_info[1] if record.exc_info else None
    found: list[str] = []
    while error is not None and len(found) < 200:
        calls = traceback.format_list(traceback.extract_tb(error.__traceback__))
        lines = [line for call in calls for line in call.rstrip("\n").split("\n")]
        said = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
        found = [*lines, f"{said}: {short_line(str(getattr(error, 'orig', None) or error))}", *found]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return [escaped(line) for line in found]


def short_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0][:SAID_CHARS]


def place(record: Place) -> dict[str, object]:
    """As `extra` of a line about a record of the log."""
    return {"topic": record.topic, "partition": record.partition, "offset": record.offset}


def each(
    log: Logger, did: str, records: Iterable[Record], topic: str, *, only: Collection[str] | None = None, **more: str
) -> None:
    """Logs a line at DEBUG for each record of a batch, or for those with an id in `only`; else it costs one check."""
    if log.isEnabledFor(DEBUG):
        for record in records:
            if only is None or record.id in only:
                at = {"topic": topic, "partition": record.partition, "offset": record.offset, "id": record.id}
                log.debug(did, extra={**at, **more})


def each_id(log: Logger, did: str, ids: Iterable[bytes]) -> None:
    if log.isEnabledFor(DEBUG):
        for message_id in dict.fromkeys(ids):
            log.debug(did, extra={"id": str(uuid.UUID(bytes=message_id))})


def dead_letters(log: Logger, bad: Sequence[tuple[Place, Any]]) -> None:
    """One line for all dead letters of a hand-over, (record, error with a reason) pairs: a sender that has changed
    makes thousands a second. At DEBUG also one for each."""
    record, error = bad[0]
    at = f"{record.topic}/{record.partition} offset {record.offset}"
    if len(bad) == 1:
        log.warning("dead letter: %s: %s", at, error.reason, extra=place(record))
        return
    reasons = Counter(error.reason for _, error in bad).most_common()
    counted = ", ".join(f"{count} {reason}" for reason, count in reasons)
    log.warning("%d dead letters: %s; the first is %s", len(bad), counted, at, extra=place(record))
    if log.isEnabledFor(DEBUG):
        for record, error in bad:
            log.debug("dead letter: %s", error.reason, extra=place(record))
