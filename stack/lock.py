"""Locks between commands: one start or stop at a time on a DATA_DIR, one installation at a time in a checkout."""

import contextlib
import fcntl
import os
from pathlib import Path

from stack.errors import StackError

# Names the descriptor of the lock for a start that goes on in the Python of `.venv`, which is the same process.
_HANDED_ON = "TEXT_PIPELINE_LOCK_FD"


class Lock:
    """A lock held until this process ends, however it ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def hand_on(self) -> None:
        """Keeps the lock through an exec of this process."""
        os.set_inheritable(self._descriptor, True)
        os.environ[_HANDED_ON] = str(self._descriptor)

    def release(self) -> None:
        os.close(self._descriptor)


def take(file: Path, complaint: str) -> Lock:
    """Takes the lock, or takes over the one that was handed on. Raises StackError when another process has it."""
    handed_on = os.environ.pop(_HANDED_ON, None)
    if handed_on is not None:
        os.set_inheritable(int(handed_on), False)
        return Lock(int(handed_on))
    lock = try_to_take(file)
    if lock is None:
        holder = file.read_text(errors="replace").strip()
        raise StackError(f"{complaint}{f' (pid {holder})' if holder else ''}")
    return lock


def try_to_take(file: Path) -> Lock | None:
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    with contextlib.suppress(OSError):  # a full disk: only a complaint of another command would have named us
        os.truncate(descriptor, 0)
        os.write(descriptor, str(os.getpid()).encode())
    return Lock(descriptor)
