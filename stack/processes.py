"""Which process is which: an identity that survives the reuse of process ids, and the processes of one system.

Reads /proc, so it works on Linux only.
"""

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from settings import Settings
from stack import places

# Every process of a system has this variable with the DATA_DIR of its system.
MARK = "TEXT_PIPELINE_DATA_DIR"


@dataclass(frozen=True)
class Identity:
    """A process id with the boot and the clock tick that it began at: no other process ever has the same."""

    pid: int
    boot: str
    ticks: int


def identity(pid: int) -> Identity | None:
    """The identity of a living process, or None."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The second field is the command's name in brackets and may hold anything; 20 fields after it comes starttime.
    after_name = stat[stat.rindex(")") + 2 :].split()
    if after_name[0] in "ZX":
        return None
    return Identity(pid, boot_id(), int(after_name[19]))


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def alive(known: Identity | None) -> bool:
    return known is not None and identity(known.pid) == known


def command_line(pid: int) -> str:
    """What a process runs, for messages; "" if that cannot be read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def marked(settings: Settings) -> list[int]:
    """The processes whose environment says that they belong to this DATA_DIR, except for this one.

    Valkey overwrites its environment with its title: it is found by the identity that was written down at its start.
    """
    wanted = os.fsencode(f"{MARK}={places.data(settings)}")
    return [pid for pid in _all() if pid != os.getpid() and wanted in _environment(pid).split(b"\0")]


def _all() -> Iterable[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _environment(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return b""


def send(pid: int, number: int) -> None:
    """A signal to a process that may be gone by now."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def end(known: dict[Identity, int], patience: float) -> None:
    """Ends processes: each gets its stop signal, and SIGKILL if it is still there after `patience` seconds."""
    for process, stop_signal in known.items():
        if alive(process):
            send(process.pid, stop_signal)
    deadline = time.monotonic() + patience
    while any(alive(process) for process in known) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in known:
        if alive(process):
            send(process.pid, signal.SIGKILL)
