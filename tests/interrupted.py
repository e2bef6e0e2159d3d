"""Ctrl-C at a command while it is still being loaded."""

import contextlib
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

from settings import ROOT

# Python imports it before anything else of a command's.
WAITING = """
import sys, time
class Waiting:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}{condition}:
            sys.__stdout__.write("here\\n")
            sys.__stdout__.flush()
            time.sleep(30)
sys.meta_path.insert(0, Waiting())
"""


def interrupted_at_import(
    module: str, command: Sequence[str], folder: Path, *, condition: str = "", **variables: str
) -> tuple[int, str, str]:
    """Exit code, output and errors of a command in the checkout that got SIGINT when it was about to import `module`.
    The `condition`, such as ' and "-m" in sys.orig_argv', is for one that starts itself again."""
    (folder / "sitecustomize.py").write_text(WAITING.format(module=module, condition=condition))
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(folder), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert select.select([process.stdout], [], [], 20)[0]
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        return process.returncode, out, err
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
