"""Log lines: nobody's characters make a line of their own, errors quote no text, above DEBUG no record costs one."""

import contextlib
import errno
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.exc import DataError

from api.gunicorn_log import Log
from records import Record
from settings import ROOT, InvalidSetting, Settings, from_environment
from tasks import celery_logs
from telemetry import logs
from telemetry.logs import JsonLines, TextLines

FORGED = "x\n2026-01-01 00:00:00,000 CRITICAL bridge: all is lost\r\x1b[2J\x85\u2028\u202eend"
ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
RECORD = Record("1f0e1ab6-0f2e-5e0a-9d0e-000000000001", "mine", "SECRET", None, 5, 2, 1041)


class Kept:
    """A logger of its own, whose lines are kept."""

    def __init__(self, form: logging.Formatter, level: int) -> None:
        self.stream = StringIO()
        handler = logging.StreamHandler(self.stream)
        handler.setFormatter(form)
        self.log = logging.Logger("tests", level)
        self.log.addHandler(handler)

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().split("\n")[:-1]

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]


@pytest.fixture(params=[TextLines, JsonLines])
def kept(request: pytest.FixtureRequest) -> Kept:
    return Kept(request.param(), logging.INFO)


@pytest.fixture
def objects() -> Kept:
    return Kept(JsonLines(), logging.INFO)


@pytest.fixture
def named() -> Iterator[None]:
    before = logs._process
    logs.name_process("bridge-0")
    yield
    logs.name_process(before)


def fail(text: str) -> None:
    raise ValueError(text)


def test_no_record_forges_a_line(kept: Kept) -> None:
    kept.log.info("dead letter: %s", FORGED, extra={"topic": FORGED, "id": FORGED})
    (line,) = kept.lines
    assert not set(line) & (set(ENDS) | {"\x1b", "\u202e"})
    assert "\\n2026-01-01" in line


def test_nor_does_an_error(kept: Kept) -> None:
    try:
        fail(FORGED)
    except ValueError:
        kept.log.exception("failed: %s", FORGED)
    assert [line for line in kept.lines if not line.startswith("    ")] == kept.lines[:1]
    assert "all is lost" in kept.lines[0]  # in the message, escaped
    assert "all is lost" not in "".join(kept.lines[1:])


@given(st.text(max_size=50))
def test_a_line_is_one_line_whatever_it_says(text: str) -> None:
    for form in (TextLines(), JsonLines()):
        kept = Kept(form, logging.INFO)
        kept.log.info("%s", text, extra={"id": text})
        assert len(kept.stream.getvalue().splitlines()) == 1
        kept.stream.getvalue().encode()


def test_an_object_says_when_where_and_of_what(objects: Kept, named: None) -> None:
    objects.log.warning("rejected: %d", 7, extra={**logs.place(SimpleNamespace(topic="t", partition=2, offset=9))})
    (line,) = objects.objects
    time = line.pop("time")
    assert line.pop("pid") > 0
    assert line == {
        "level": "WARNING",
        "logger": "tests",
        "message": "rejected: 7",
        "process": "bridge-0",
        "topic": "t",
        "partition": 2,
        "offset": 9,
    }
    assert time.endswith("Z")
    assert len(time) == len("2026-01-31T12:00:00.123456Z")


def test_an_error_has_its_way_and_its_cause_and_quotes_no_values(objects: Kept) -> None:
    text = "SECR" + "ET"  # a way shows the lines of the program
    try:
        try:
            fail(f"invalid input\nDETAIL: {text}")
        except ValueError as error:
            raise DataError("INSERT", {"message": text}, error, hide_parameters=True) from error
    except DataError:
        objects.log.exception("not stored")
    (line,) = objects.objects
    assert "SECRET" not in json.dumps(line)
    assert [each for each in line["error"] if not each.startswith("  ")] == [
        "ValueError: invalid input",
        "sqlalchemy.exc.DataError: invalid input",
    ]
    assert any("in fail" in each for each in line["error"])


def test_what_celery_says_of_an_error_is_its_first_line(objects: Kept) -> None:
    told = {
        "name": "tasks.persist_text",
        "id": "1",
        "description": "raised",
        "exc": "DataError('bad\\nDETAIL: SECRET')",
    }
    objects.log.error("Task %(name)s[%(id)s] %(description)s: %(exc)s", told)
    assert objects.objects[0]["message"] == "Task tasks.persist_text[1] raised: DataError('bad"


def test_an_endless_message_is_cut(objects: Kept) -> None:
    objects.log.info("x" * 1_000_000)
    assert len(objects.lines[0]) < 30_000


def test_text_says_what_the_message_does_not() -> None:
    text = Kept(TextLines(), logging.INFO)
    text.log.info("rejected: offset 1041", extra={"offset": 1041, "id": "a"})
    assert text.lines[0].endswith("INFO tests: rejected: offset 1041 [id=a]")


class Untouched:
    """A batch that nobody may look at."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("above DEBUG a record costs nothing")


def test_records_are_told_of_one_by_one_at_debug_only(objects: Kept) -> None:
    logs.each(objects.log, "stored", Untouched(), "t")
    logs.each_id(objects.log, "embedded", Untouched())
    assert objects.lines == []
    objects = Kept(JsonLines(), logging.DEBUG)
    logs.each(objects.log, "stored", [RECORD, RECORD._replace(id="other")], "t", only={RECORD.id}, task_id="abc")
    (line,) = objects.objects
    at = {name: line[name] for name in logs.FIELDS}
    assert at == {"topic": "t", "partition": 2, "offset": 1041, "id": RECORD.id, "task_id": "abc"}
    assert "SECRET" not in objects.lines[0]
    assert "mine" not in objects.lines[0]


def test_dead_letters_of_a_batch_are_one_line(objects: Kept) -> None:
    bad = [
        (SimpleNamespace(topic="t", partition=1, offset=number), SimpleNamespace(reason=reason))
        for number, reason in enumerate(["invalid-json", "missing-text", "invalid-json"])
    ]
    logs.dead_letters(objects.log, bad)
    logs.dead_letters(objects.log, bad[1:2])
    first, second = objects.objects
    assert first["message"] == "3 dead letters: 2 invalid-json, 1 missing-text; the first is t/1 offset 0"
    assert (second["message"], second["offset"]) == ("dead letter: t/1 offset 1: missing-text", 1)


@pytest.mark.parametrize("thread", [False, True])
def test_what_nobody_has_caught_is_a_line_too(thread: bool) -> None:
    ends = "threading.Thread(target=fail).start()" if thread else "fail()"
    program = f"""
import threading
from settings import Settings
from telemetry import logs
def fail():
    raise ValueError("gone\\nCRITICAL forged")
logs.set_up(Settings(log_format="json"), "bridge-0")
{ends}
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert (line["process"], line["error"][-1]) == ("bridge-0", "ValueError: gone")


def test_another_format_is_refused() -> None:
    assert from_environment({"LOG_FORMAT": "json"}) == Settings(log_format="json")
    with pytest.raises(InvalidSetting, match="LOG_FORMAT='xml': takes text or json"):
        from_environment({"LOG_FORMAT": "xml"})


def test_an_error_that_nothing_caught_is_not_said_to_be_the_end(caplog: pytest.LogCaptureFixture) -> None:
    logs.uncaught(ValueError, ValueError("gone"), None)
    assert [(line.levelname, line.message) for line in caplog.records] == [("CRITICAL", "an error that nothing caught")]


def test_gunicorn_names_no_path_over_which_the_application_failed(caplog: pytest.LogCaptureFixture) -> None:
    log = object.__new__(Log)
    log.error_log = logging.getLogger("gunicorn.error")
    log.exception("Error handling request %s %s", "GET", "/messages/a-source-id")
    log.exception("another %s", "error")
    with contextlib.suppress(BlockingIOError):
        try:
            raise BlockingIOError
        finally:
            log.exception("Socket error processing request.")
    assert [record.getMessage() for record in caplog.records] == ["Error handling request", "another error"]


def test_what_celery_says_in_a_signals_handler_ends_no_task_where_nobody_can_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[bytes] = []

    def write(_where: int, line: bytes) -> None:
        said.append(line)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tasks.celery_logs.os", SimpleNamespace(write=write))
    celery_logs.say("worker: Warm shutdown (MainProcess)")
    assert len(said) == 1
