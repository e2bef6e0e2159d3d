"""./e2e_test.sh while it is interrupted, and where nobody reads what it finds."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from settings import ROOT

# The part of ./start.sh: what it has started it stops for longer than subprocess.run is patient.
START = """
import sys, time
try:
    print("here", flush=True)
    time.sleep(30)
except KeyboardInterrupt:
    time.sleep(1.0)
    open(sys.argv[1], "w").close()
    sys.exit(130)
"""

TEST = """
import sys
from clients import e2e, terminal
sys.exit(terminal.run("e2e_test.sh", lambda: e2e.run_to_its_end([sys.executable, *sys.argv[1:]])))
"""


def test_ctrl_c_waits_until_the_start_has_cleaned_up(tmp_path: Path) -> None:
    cleaned = tmp_path / "cleaned"
    process = subprocess.Popen(
        [sys.executable, "-c", TEST, "-c", START, str(cleaned)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=20)
    assert process.returncode == 130
    assert cleaned.exists()


CHECKS = """
import sys
from clients import e2e, terminal
from clients.e2e_checks import Unmet

def fails(trial):
    raise Unmet("this", "that")

e2e.answers = lambda api: True
e2e.CHECKS = [("one", lambda trial: None, 5.0), ("two", fails, 5.0), ("three", lambda trial: None, 5.0)]
sys.exit(e2e.main([]))
"""


def test_a_check_that_fails_is_told_by_the_exit_code_also_where_the_reader_has_left() -> None:
    command = 'sleep 0 | { sleep 0.2; "$@"; echo "$?" >&2; } | exec 0<&-'
    ended = subprocess.run(
        ["bash", "-c", command, "bash", sys.executable, "-c", CHECKS],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.stderr == "1\n"
