"""A wrong setting ends every command in the same way."""

import os
import shlex
import subprocess
import sys

import pytest

from settings import ROOT


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
        "cli.py health",
        "kafka_cli.py topics",
    ],
)
def test_a_wrong_setting_is_2_and_told_in_a_line(command: str) -> None:
    ended = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        env={**os.environ, "KAFKA_TOPIC": "a b"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.endswith("KAFKA_TOPIC='a b': takes 1 to 236 of a-z A-Z 0-9 . _ -\n")
    assert ended.stderr.count("\n") == 1
