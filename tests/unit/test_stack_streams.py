"""What the commands of the stack do where their words cannot be written, and when they are interrupted."""

import os
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from settings import ROOT, Settings
from stack import commands, docker, progress, scale, scale_command, system
from stack.system import KnownPart, System
from tests.interrupted import interrupted_at_import

TWO_OF_EACH = System(
    Settings(persist_workers=2, embed_workers=2),
    tuple(KnownPart(f"{queue}-worker{end}", 3, ()) for queue in ("persist", "embed") for end in ("", "-2")),
    True,
)


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", line],
        cwd=ROOT,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize("command", ["./status.sh", "./start.sh --status", "./scale.sh --help"])
@pytest.mark.parametrize(
    ("where", "why"), [(">/dev/full", "No space left on device"), (">&-", "Bad file descriptor"), ("<&- >&-", "Bad")]
)
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_words_that_cannot_be_written_are_a_failure(
    command: str, where: str, why: str, unbuffered: str, tmp_path: Path
) -> None:
    if "--help" in command and ">&-" in where:
        why = ""
    answer = shell(f"{command} {where}", DATA_DIR=str(tmp_path), PYTHONUNBUFFERED=unbuffered)
    assert answer.returncode == 1
    assert answer.stderr.startswith(f"standard output cannot be written: {why}")
    assert answer.stderr.count("\n") == 1


def test_other_errors_are_told_alone_where_nothing_else_can_be(tmp_path: Path) -> None:
    for where in (">/dev/full", ">&-"):
        answer = shell(f"./scale.sh {where}", DATA_DIR=str(tmp_path))
        assert answer.returncode == 1
        assert answer.stderr.startswith("it does not run")
        assert answer.stderr.count("\n") == 1


def test_a_reader_who_has_enough_is_no_failure(tmp_path: Path) -> None:
    answer = shell("./scale.sh --help | true; echo ${PIPESTATUS[0]}", DATA_DIR=str(tmp_path))
    assert (answer.stdout, answer.stderr) == ("0\n", "")


def test_a_closed_standard_error_leaves_the_exit_code(tmp_path: Path) -> None:
    answer = shell("./scale.sh 2>&-", DATA_DIR=str(tmp_path))
    assert (answer.returncode, answer.stdout, answer.stderr) == (1, "", "")


def test_any_locale_will_do() -> None:
    line = "import sys; import streams; streams.prepare(); print('embed: 2 \\u2192 4')"
    answer = shell(
        f'{sys.executable} -c "{line}"', LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING=""
    )
    assert answer.stdout == "embed: 2 \u2192 4\n"


@pytest.fixture
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a command sets for its process is undone."""
    monkeypatch.setattr(progress, "_lost", [])
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.usefixtures("handlers")
def test_numbers_of_workers_that_nobody_can_read_are_a_failure(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "running", lambda _: TWO_OF_EACH)
    monkeypatch.setattr(docker, "is_up", lambda _: False)
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert commands.main(["scale", *options]) == 1
        full.flush()  # nothing is left to complain of
    assert capsys.readouterr().err == "standard output cannot be written: No space left on device\n"


@pytest.mark.usefixtures("handlers")
def test_a_command_that_does_something_has_done_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    answer = shell("./stop.sh >/dev/full", DATA_DIR=str(tmp_path))
    assert answer.returncode == 0
    assert answer.stderr == "standard output cannot be written: No space left on device\n"


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_an_interrupted_scale_says_how_many_there_are(
    options: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        four = tuple(KnownPart(f"embed-worker{end}", 3, ()) for end in ("", "-2", "-3", "-4"))
        monkeypatch.setattr(system, "read", lambda _: System(TWO_OF_EACH.settings, four, True))
        raise KeyboardInterrupt

    monkeypatch.setattr(scale, "running", lambda _: TWO_OF_EACH)
    monkeypatch.setattr(scale, "scale", interrupted)
    monkeypatch.setattr(docker, "is_up", lambda _: False)
    given = Namespace(queue="embed", workers="4", timeout=None, json=bool(options))
    assert scale_command.run(Settings(), given) == 130
    said = capsys.readouterr()
    assert said.err == "interrupted: embed has 4\n"
    assert "Interrupted" not in said.out


@pytest.mark.parametrize("module", ["settings", "stack.docker"])
def test_an_interrupt_in_the_middle_of_the_imports_is_quiet(module: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stack", "scale"]
    condition = ' and "-m" in sys.orig_argv'
    ended = interrupted_at_import(module, command, tmp_path, condition=condition, DATA_DIR=str(tmp_path))
    assert ended == (130, "", "")
