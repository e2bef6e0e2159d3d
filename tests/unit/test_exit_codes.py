"""A wrong setting and wrong usage end every command in the same way, and its help tells the exit codes."""

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import db.command_line
import stack.commands
from clients import e2e, kafka_commands, rest_commands
from examples import load
from settings import ROOT


def database_command(words: list[str]) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["db", *words])
        return db.command_line.main()


COMMANDS = [
    "-m bridge",
    "-m bridge.topics",
    "-m telemetry.heartbeat",
    "-m embedder.calibrate",
    "-m clients.e2e",
    "-m db",
    "-m db upgrade",
    "-m db downgrade",
    "-m db current",
    "-m db reembed",
    "-m db retry-failed",
    "-m db embed-missing",
    "-m stack start",
    "-m stack stop",
    "-m stack status",
    "-m stack scale",
    "cli.py",
    "kafka_cli.py",
]


def typed(command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_help_tells_what_it_does_and_the_exit_codes(command: str) -> None:
    ended = typed(f"{command} --help")
    assert (ended.returncode, ended.stderr) == (0, "")
    usage, about, *rest = ended.stdout.split("\n\n")
    assert usage.startswith("usage: ")
    assert not about.startswith(("options:", "positional arguments:"))
    assert any(part.lstrip().startswith("exit codes: 0 ") for part in rest)


@pytest.mark.parametrize(
    "command",
    [
        "-m bridge.topics --nix",
        "-m telemetry.heartbeat --nix",
        "-m embedder.calibrate",
        "-m clients.e2e --nix",
        "-m db --nix",
        "examples/debian.py --sample --limit 0",
    ],
)
def test_wrong_usage_is_2_and_told(command: str) -> None:
    ended = typed(command)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "error: " in ended.stderr


@pytest.mark.parametrize(
    ("content", "said"), [(None, "No such file"), (b"\xff", "can't decode"), (b" \n", "no text in there")]
)
def test_so_is_a_file_of_no_texts(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "texts"
    if content is not None:
        file.write_bytes(content)
    ended = typed(f"-m embedder.calibrate {shlex.quote(str(file))}")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "python -m embedder.calibrate: error: " in ended.stderr
    assert said in ended.stderr


@pytest.mark.parametrize(
    "command",
    [
        "-m bridge",
        "-m bridge.topics",
        "-m telemetry.heartbeat",
        "-m db current",
        "-m db reembed status",
        "-m stack scale",
        "-m stack start",
        "-m stack.autoscale",
        "-m tasks.celery -A tasks.app worker",
        "-m gunicorn api.wsgi:text_api",
        "cli.py health",
        "kafka_cli.py topics",
    ],
)
def test_a_wrong_setting_is_2_and_told_in_a_line(command: str) -> None:
    ended = typed(command, KAFKA_TOPIC="a b")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("KAFKA_TOPIC='a b': takes 1 to 236 of a-z A-Z 0-9 . _ -\n")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["-m stack start", "-m stack stop", "-m stack status", "-m stack scale"])
def test_so_is_a_data_folder_in_the_home_of_nobody(command: str) -> None:
    ended = typed(command, DATA_DIR="~nobody-at-all/data")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "DATA_DIR='~nobody-at-all/data': there is no such home\n"


@pytest.mark.parametrize("command", ["start", "stop", "status", "scale"])
def test_so_is_a_data_folder_that_can_be_none(command: str, tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.touch()
    link.symlink_to(tmp_path / "nothing")
    for wrong, there in ((file, file), (file / "data", file), (link, link)):
        ended = typed(f"-m stack {command}", DATA_DIR=str(wrong))
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr == f"DATA_DIR={str(wrong)!r}: {there} is no folder\n"


# Each command of those at the top, with the function that reads its words.
HELP: dict[Callable[[list[str]], object], list[str]] = {
    stack.commands.main: ["", "start", "stop", "status", "scale"],
    e2e.main: [""],
    rest_commands.main: ["", "health", "list", "create", "get", "search", "trace", "stats"],
    kafka_commands.main: [
        *("", "produce", "consume", "topics", "lag", "pause", "resume", "drain", "rewind"),
        *("dead-letters", "dead-letters list", "dead-letters show", "dead-letters replay", "dead-letters drop"),
    ],
    load.parser().parse_args: [""],
    database_command: ["", "upgrade", "downgrade", "current", "reembed", "retry-failed", "embed-missing"],
}


@pytest.mark.parametrize(("call", "command"), [(call, each) for call, commands in HELP.items() for each in commands])
def test_help_fits_a_terminal_of_80_columns(
    call: Callable[[list[str]], object],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with contextlib.suppress(SystemExit):
        call([*command.split(), "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: ")
    assert [line for line in shown.splitlines() if len(line) > 80] == []


@pytest.mark.parametrize(("call", "command"), [(kafka_commands.main, "rewind"), (stack.commands.main, "scale")])
def test_its_sentences_are_as_narrow_as_the_terminal(
    call: Callable[[list[str]], object],
    command: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    call([command, "--help"])
    sentences = capsys.readouterr().out.split("\n\n")[1].splitlines()
    assert len(sentences) > 1
    assert max(map(len, sentences)) <= 50
