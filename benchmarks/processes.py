"""Child processes that are measured: how they are started and ended, and what they take of processor and memory.

Everything is read from /proc, so it costs next to nothing while something is being measured.
"""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
STOP_SECONDS = 10.0

RUNNING: list["Running"] = []


class Running:
    """A command in a process group of its own; its output goes to a file."""

    def __init__(
        self, name: str, command: Sequence[str], *, environment: Mapping[str, str], folder: Path, log: Path
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        RUNNING.append(self)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group: nothing can be cleaned up."""
        self.stop("KILL")

    def ask_to_stop(self, name: str = "TERM") -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.Signals[f"SIG{name}"])

    def stop(self, name: str = "TERM") -> None:
        """Asks it to end, and kills it after STOP_SECONDS."""
        if self not in RUNNING:
            return
        self.ask_to_stop(name)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        RUNNING.remove(self)

    def log_tail(self, lines: int = 15) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def stop_all() -> None:
    """Ends everything that runs, whatever went wrong: nothing outlives the benchmarks."""
    for each in reversed(list(RUNNING)):
        each.kill()


def families(roots: Mapping[str, int]) -> dict[str, list[int]]:
    """Each of these processes with all its descendants; one look at the list of all processes."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdecimal():
            with contextlib.suppress(OSError):
                children.setdefault(int(_stat(int(name))[1]), []).append(int(name))
    found = {}
    for name, root in roots.items():
        pids, at = [root], 0
        while at < len(pids):
            pids += children.get(pids[at], [])
            at += 1
        found[name] = pids
    return found


def cpu_seconds(pids: Sequence[int]) -> float:
    """Processor time of a process, its descendants, and those of them that have ended."""
    ticks = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))  # utime, stime, and those of children that were waited for
    return ticks / TICKS


def memory_mb(pids: Sequence[int]) -> float:
    """Memory of a process and its descendants; pages that several share count for each by its share (PSS)."""
    kilobytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kilobytes += int(line.split()[1])
    return kilobytes / 1024


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name, which may hold anything: state, ppid, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class Meter:
    """Processor time and the largest memory of several processes since it was made. `sample` it now and then."""

    def __init__(self, roots: Mapping[str, int]) -> None:
        self.roots = dict(roots)
        self.began: dict[str, float] = {}
        self.spent: dict[str, float] = {}
        self.seconds: list[tuple[float, float]] = []  # (time since 1970, seconds spent by all until then)
        self.restart()
        self.largest_mb = dict.fromkeys(self.roots, 0.0)
        self.series: list[tuple[float, dict[str, float]]] = []
        self._started = time.monotonic()

    def restart(self) -> None:
        """Processor time counts from now on."""
        self.began = {name: cpu_seconds(pids) for name, pids in families(self.roots).items()}
        self.spent = dict.fromkeys(self.roots, 0.0)
        self.seconds = [(time.time(), 0.0)]

    def sample(self) -> None:
        found = families(self.roots)
        now = {name: memory_mb(pids) for name, pids in found.items()}
        for name, megabytes in now.items():
            self.largest_mb[name] = max(self.largest_mb[name], megabytes)
            self.spent[name] = max(self.spent[name], cpu_seconds(found[name]) - self.began[name])
        self.series.append((time.monotonic() - self._started, now))
        self.seconds.append((time.time(), sum(self.spent.values())))
