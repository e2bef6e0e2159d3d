"""The logs of the one-shot steps, and what the stack itself says in a part's: in the form of the settings."""

import json
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from settings import Settings
from stack import autoscale, log_lines, places, record, run, shell, start
from stack.errors import StackError
from stack.processes import Identity
from stack.progress import Progress
from stack.record import Record
from telemetry.logs import JsonLines

SAYS = """
import sys
print("revision 0004 \\u2192 a \\x1b[2J", flush=True)
print("a warning", file=sys.stderr)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture
def step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from which a step called `saying` is run, in place of one of the project's."""
    (tmp_path / "saying.py").write_text(SAYS)
    monkeypatch.setattr(start, "ROOT", tmp_path)
    monkeypatch.setattr(places, "VENV_PYTHON", Path(sys.executable))
    return tmp_path


def run_step(settings: Settings, code: int) -> Path:
    places.logs(settings).mkdir(parents=True)
    with Progress() as progress:
        start._command(settings, progress, "Migrations", "saying", str(code))()
    return places.log(settings, "migrations")


def test_a_step_logs_objects_where_that_is_wanted(step: Path) -> None:
    log = run_step(Settings(data_dir=str(step), log_format="json"), 0)
    first, second = map(json.loads, log.read_text().splitlines())
    assert first["message"] == "revision 0004 \u2192 a \x1b[2J"
    assert (second["message"], second["process"], second["logger"]) == ("a warning", "migrations", "saying")


def test_a_step_logs_its_lines_as_they_are_otherwise(step: Path) -> None:
    log = run_step(Settings(data_dir=str(step)), 0)
    assert log.read_text() == "revision 0004 \u2192 a \x1b[2J\na warning\n"


def test_a_step_that_fails_is_told_in_its_own_words(step: Path) -> None:
    with pytest.raises(StackError) as failed:
        run_step(Settings(data_dir=str(step), log_format="json"), 3)
    assert failed.value.detail[-1] == "a warning"


def test_a_step_ends_with_a_start_that_fails(step: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A migration waits for others as long as it takes."""
    monkeypatch.setattr(shell, "_ended", threading.Event())
    places.logs(settings := Settings(data_dir=str(step))).mkdir(parents=True)
    (step / "saying.py").write_text("import time\nprint('waits', flush=True)\ntime.sleep(20)")
    log = places.log(settings, "migrations")
    codes: list[int] = []

    def migrate() -> None:
        codes.append(start._logged(settings, "migrations", ["saying"], log)[0])

    def fail() -> None:
        while not (log.exists() and log.read_text()):
            time.sleep(0.01)
        raise StackError("Kafka died")

    with pytest.raises(StackError, match="Kafka died"):
        start._in_parallel([migrate, fail])
    assert codes == [-signal.SIGTERM]


def test_the_keys_are_those_of_every_part() -> None:
    record = logging.LogRecord("a.logger", logging.INFO, __file__, 1, "said", None, None)
    own = log_lines.told(Settings(log_format="json"), "said", process="p", logger="a.logger", pid=record.process or 0)
    theirs = json.loads(JsonLines().format(record))
    ours = json.loads(own)
    assert list(ours) == list(theirs)
    assert len(ours.pop("time")) == len(theirs.pop("time"))
    assert ours == {**theirs, "process": "p"}


@pytest.mark.parametrize("form", ["json", "text"])
def test_what_autoscale_did_is_an_object_too(
    form: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def once(settings: Settings, wishes: object, say: object) -> None:
        assert callable(say)
        say("embed: 1 \u2192 2 workers")
        raise KeyboardInterrupt

    monkeypatch.setattr(autoscale, "load", lambda: Settings(log_format=form))
    monkeypatch.setattr(autoscale, "follow", once)
    autoscale.main()
    said = capsys.readouterr().out
    if form == "json":
        assert json.loads(said)["message"] == "embed: 1 \u2192 2 workers"
    else:
        assert said.endswith(" embed: 1 \u2192 2 workers\n")


def test_so_is_a_start_that_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    early = Record(Identity(1, "boot", 1), 15, 2, 1, time.monotonic() - 0.4)  # the wait after one early death is 0.5 s
    monkeypatch.setattr(record, "write_own", lambda *_: early)
    for module, name in ((signal, "signal"), (os, "chdir"), (os, "execve")):
        monkeypatch.setattr(module, name, lambda *_: None)
    run.run(Settings(data_dir=str(tmp_path), log_format="json"), "beat")
    said = json.loads(capsys.readouterr().out)
    assert said["message"].startswith("beat died early: its next start comes in ")
    assert said["process"] == "beat"
