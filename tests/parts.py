"""Parts under test: each a child process in a process group of its own, with its log in a file that failures show.

What a part is (its command, its environment, how it is asked for its health) stands in `stack`; here it is only run.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NoReturn, TypeVar

import pytest

from settings import ROOT, Settings
from stack import Part, StackError, kafka, local_part
from stack.part import environment

Found = TypeVar("Found")

RUNNING: list["Running"] = []


class Running:
    """A part that was started. `kill` is a crash, `stop` an orderly end; `start` may follow either."""

    def __init__(self, part: Part, log: Path) -> None:
        self.part = part
        self.log = log
        self.shown_from = 0
        log.parent.mkdir(parents=True, exist_ok=True)
        self.start()

    def start(self) -> None:
        self.asked_to_stop = False
        self.part.prepare()
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                self.part.command,
                cwd=self.part.directory,
                # What a killed part leaves behind there goes with the test's own folder.
                env={**self.part.environment, "TMPDIR": self.part.environment["DATA_DIR"]},
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
        """A dead process is left a zombie until `_reap`, so that nobody else gets its process group meanwhile."""
        if self.process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait_until_healthy(self, timeout: float = 60) -> None:
        self.part.wait_until_healthy(timeout, lambda: None if self.alive else f"it ended:\n{self.log_tail()}")

    def signal(self, number: int) -> None:
        """To the main process alone, as an operator or the supervisor would."""
        if self.alive:
            os.kill(self.pid, number)

    def pause(self) -> None:
        """Stops the whole group without a word, like a machine that hangs; `resume` lets it go on."""
        os.killpg(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.killpg(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """SIGKILL to the whole group: nothing can be cleaned up."""
        self._reap()

    def ask_to_stop(self) -> None:
        if not self.asked_to_stop:
            self.asked_to_stop = True
            self.signal(signal.Signals[f"SIG{self.part.stop_signal}"])

    def stop(self) -> None:
        self.ask_to_stop()
        self._reap(patience=self.part.stop_seconds)

    def _reap(self, patience: float = 0) -> None:
        if self.process.returncode is not None:
            return
        deadline = time.monotonic() + patience
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        RUNNING.remove(self)

    def log_tail(self, lines: int = 40) -> str:
        """The last lines since `shown_from`, where the present test began."""
        with self.log.open("rb") as stream:
            stream.seek(self.shown_from)
            return "\n".join(stream.read().decode(errors="replace").splitlines()[-lines:])


def stop_all(running: Iterable[Running]) -> None:
    """Ends parts together: each is asked at once, in the reverse order of their start, and then waited for."""
    last_first = list(running)[::-1]
    for each in last_first:
        each.ask_to_stop()
    for each in last_first:
        each.stop()


def missing(reason: str) -> NoReturn:
    """Something that is not installed skips a test on a laptop, and fails it where everything has to be there."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def service(settings: Settings, name: str) -> Running:
    """Starts Kafka, PostgreSQL or Valkey and waits for it."""
    try:
        part = local_part(settings, name)
    except (StackError, FileNotFoundError) as error:
        missing(str(error))
    if name == "kafka" and not any(kafka.jars(settings).glob("lib/*.jar")):
        missing("Kafka is not installed: run `make install`")
    if name == "postgres":
        # Safe against everything but the end of the machine, and a database for each test is made in half the time.
        part = replace(part, command=[*part.command, "-c", "fsync=off"])
    running = Running(part, Path(settings.data_dir) / "logs" / f"{name}.log")
    try:
        running.wait_until_healthy()
    except BaseException:
        running.kill()
        raise
    return running


def send_task(settings: Settings, name: str, *arguments: object) -> None:
    """Sends it from a process of its own: this one's Celery belongs to the settings of nobody."""
    code = f"from tasks.app import app; app.send_task({name!r}, args={arguments!r})"
    command = [sys.executable, "-c", code]
    subprocess.run(command, cwd=ROOT, env=environment(settings), check=True, timeout=60)


def eventually(check: Callable[[], Found], timeout: float = 15, interval: float = 0.05) -> Found:
    """Calls `check` until it returns something true and raises no AssertionError; returns that.

    After `timeout` seconds it fails with what the last call said.
    """
    deadline = time.monotonic() + timeout
    while True:
        last_try = time.monotonic() >= deadline
        try:
            found = check()
        except AssertionError:
            if last_try:
                raise
        else:
            if found:
                return found
            if last_try:
                raise AssertionError(f"still {found!r} after {timeout:g} s")
        time.sleep(interval)
