"""A wrong setting and wrong usage end every command in the same way, and its help tells the exit codes."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from settings import ROOT

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
