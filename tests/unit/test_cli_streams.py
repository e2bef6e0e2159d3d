"""The commands where standard input or output is closed or full, and what they print for a terminal of any width."""

import os
import signal
import subprocess
import sys

import pytest

from clients import terminal
from settings import ROOT

PRINTS = """
import sys
from clients.terminal import CommandFailed, run

def command():
    print("x" * int(sys.argv[1]))
    if sys.argv[2:]:
        raise CommandFailed("no")
    return 0

sys.exit(run("program", command))
"""
FULL = "program: standard output: No space left on device\n"


def shell(command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs a line of the shell, in which "$@" is this Python and what follows it."""
    return subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, *arguments],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("length", ["1", "100000"])  # it fails at the end, and in the middle
@pytest.mark.parametrize(("fails", "said"), [((), FULL), (("fails",), "program: no\n" + FULL)])
def test_a_full_output_is_one_line(length: str, fails: tuple[str, ...], said: str) -> None:
    ended = shell('"$@" > /dev/full', "-c", PRINTS, length, *fails)
    expected = FULL if length != "1" else said  # in the middle the command comes no further
    assert (ended.returncode, ended.stderr) == (1, expected)


def test_a_closed_output_is_one_line() -> None:
    ended = shell('"$@" >&-', "-c", PRINTS, "1")
    assert (ended.returncode, ended.stderr) == (1, "program: standard output is closed: there is nowhere to write to\n")


@pytest.mark.parametrize("length", ["1", "100000"])
def test_a_broken_pipe_is_silent(length: str) -> None:
    ended = shell('sleep 0 | { "$@"; echo "$?" >&2; } | exec 0<&-', "-c", PRINTS, length)
    assert ended.stderr == "0\n"


def test_with_closed_errors_nothing_is_said_in_the_output() -> None:
    ended = shell('"$@" 2>&-', "-c", PRINTS, "1", "fails")
    assert (ended.returncode, ended.stdout) == (1, "x\n")


@pytest.mark.parametrize("buffered", ["", "PYTHONUNBUFFERED=1 "])
@pytest.mark.parametrize("words", [("cli.py",), ("cli.py", "list"), ("kafka_cli.py",), ("kafka_cli.py", "lag")])
def test_help_that_cannot_be_written_is_a_failure(words: tuple[str, ...], buffered: str) -> None:
    script = words[0]
    ended = shell(f'{buffered}"$@" > /dev/full', *words, "--help")
    assert (ended.returncode, ended.stderr) == (1, f"{script}: standard output: No space left on device\n")


@pytest.mark.parametrize(
    "words", [("kafka_cli.py", "produce", "texts", "-"), ("cli.py", "--url", "http://localhost:1", "create", "-")]
)
def test_a_closed_input_is_wrong_usage(words: tuple[str, ...]) -> None:
    ended = shell('"$@" <&-', *words)
    assert (ended.returncode, ended.stderr) == (
        2,
        f"{words[0]}: standard input is closed: there is nothing to read\n",
    )


def test_a_closed_input_is_nobody_to_ask() -> None:
    program = """
from clients.terminal import confirm, run
run("program", lambda: confirm("Do it?", "not done", yes=False, unasked="this does it") or 0)
"""
    assert "without a terminal to ask on" in shell('"$@" <&-', "-c", program).stderr


@pytest.mark.parametrize("columns", ["0", "1", "39"])
def test_a_terminal_of_hardly_any_width_has_whole_names(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    terminal.table(["topic", "text"], [("text-messages:2:1041", "word " * 100)], wide="text")
    head, row = capsys.readouterr().out.splitlines()
    assert head == "topic\ttext"
    assert row.startswith("text-messages:2:1041\tword word ")
    assert len(row) < 300


def test_a_table_is_as_wide_as_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    terminal.table(["topic", "text"], [("text-messages:2:1041", "word " * 100)], wide="text")
    _head, row = capsys.readouterr().out.splitlines()
    assert len(row) == 40
    assert row.startswith("text-messages:2:1041 ")


@pytest.mark.parametrize("mark", ["\x1b", "\x9b", "\u2028", "\u2029", "\u202e", "\u2067"])
def test_what_a_terminal_or_a_reader_of_lines_obeys_is_not_shown(mark: str) -> None:
    assert terminal.printable(f"a{mark}b") == "a\ufffdb"
    assert mark not in terminal.escaped(f"a{mark}b")


DRAIN = """
import sys, time
from clients import connect, drain, kafka_commands, steering
from contextlib import nullcontext

def wait(*given):
    print("waiting", file=sys.stderr, flush=True)
    time.sleep(60)

steering.pause = lambda settings, paused: "name"
connect.admin = lambda settings: nullcontext()
drain.wait = wait
sys.exit(kafka_commands.main(["drain"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_drain_that_is_stopped_says_that_the_intake_stays_paused(number: int, code: int) -> None:
    with subprocess.Popen([sys.executable, "-c", DRAIN], cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "waiting\n"
        process.send_signal(number)
        _, said = process.communicate(timeout=30)
    assert said == "the intake stays paused: `python kafka_cli.py resume` lets it go on\n"
    assert process.returncode == code
