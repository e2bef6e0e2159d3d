"""How the benchmarks end when they are asked to: once, whole, and not where the asking is ignored."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from settings import ROOT

PROGRAM = """
import sys, time
from pathlib import Path
from benchmarks import ending

ending.on_request()
place = Path(sys.argv[1])
try:
    (place / "runs").touch()
    time.sleep(60)
except KeyboardInterrupt:
    with ending.undisturbed():
        (place / "cleans").touch()
        deadline = time.monotonic() + 30
        while not (place / "enough").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        (place / "clean").touch()
    sys.exit(130)
"""


def running(place: Path, before: str = "") -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", before + PROGRAM, str(place)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    wait_for(place / "runs")
    return process


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, file
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP"])
def test_a_second_request_does_not_break_off_the_cleaning_up(tmp_path: Path, name: str) -> None:
    with running(tmp_path) as process:
        process.send_signal(signal.Signals[f"SIG{name}"])
        wait_for(tmp_path / "cleans")
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(each)
        (tmp_path / "enough").touch()
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert (tmp_path / "clean").exists()
    assert said == "stopping …\n"


def test_a_closed_terminal_does_not_end_what_nohup_runs(tmp_path: Path) -> None:
    (tmp_path / "enough").touch()
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with running(tmp_path, before=ignored) as process:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.3)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(30) == 130
