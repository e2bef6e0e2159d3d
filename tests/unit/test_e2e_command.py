"""./e2e_test.sh while it is interrupted."""

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
