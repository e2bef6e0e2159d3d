"""Runs programs to their end: their output goes to a log, its gist to the screen, and they end with us."""

import contextlib
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
        with reading(command, environment=environment, folder=folder) as process:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                lines.append(line.rstrip())
                note = gist(line.strip())
                if note is not None:
                    step.note = note
    if process.returncode != 0:
        raise StackError(f"{step.label}: failed; all of its output is in {log}", lines[-12:])


@contextlib.contextmanager
def reading(command: Sequence[str], *, environment: Mapping[str, str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A program whose output, errors too, is read line by line; at the end of the block it has ended."""
    with subprocess.Popen(
        command,
        cwd=folder,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        with _lock:
            _running.add(process)
            if _ended.is_set():
                process.terminate()
        try:
            yield process
        finally:
            with _lock:
                _running.discard(process)


def end_all() -> None:
    """Ends what is running and what would be run next, after a failure elsewhere or Ctrl-C."""
    with _lock:
        _ended.set()
        for process in _running:
            process.terminate()
