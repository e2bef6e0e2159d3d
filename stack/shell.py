"""Runs the programs of an installation: their output goes to a log, its gist to the screen, and they end with us."""

import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from stack.errors import StackError
from stack.progress import Step

_running: set[subprocess.Popen[str]] = set()
_lock = threading.Lock()
_ended = threading.Event()


def run(
    command: Sequence[str],
    *,
    step: Step,
    log: Path,
    environment: Mapping[str, str],
    gist: Callable[[str], str | None],
    folder: Path,
) -> None:
    """Runs a program to its end. Raises StackError with the end of its output if it fails.

    `gist` turns a line of output into a note for the screen, or None for a line that says nothing to the user.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    with log.open("a", encoding="utf-8") as file:
        file.write(f"$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        with _lock:
            _running.add(process)
            if _ended.is_set():
                process.terminate()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                lines.append(line.rstrip())
                note = gist(line.strip())
                if note is not None:
                    step.note = note
            code = process.wait()
        finally:
            with _lock:
                _running.discard(process)
            process.stdout.close()  # type: ignore[union-attr]
    if code != 0:
        raise StackError(f"{step.label}: failed; all of its output is in {log}", lines[-12:])


def end_all() -> None:
    """Ends what is running and what would be run next, after a failure elsewhere or Ctrl-C."""
    with _lock:
        _ended.set()
        for process in _running:
            process.terminate()
