"""What a command shows while it works: a line for each step that is done, and on a terminal what is under way below it.

Only the standard library, because the installation uses it before anything is installed.
"""

import contextlib
import os
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import streams


def on_terminal() -> bool:
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def style(text: str, code: str) -> str:
    """Text in bold, dim or a colour, if that can be seen and is wanted."""
    return f"\033[{code}m{text}\033[0m" if on_terminal() and not os.environ.get("NO_COLOR") else text


def bold(text: str) -> str:
    return style(text, "1")


def dim(text: str) -> str:
    return style(text, "2")


def green(text: str) -> str:
    return style(text, "32")


def red(text: str) -> str:
    return style(text, "31")


def say(text: str = "") -> None:
    """One line to the user. A reader that went away (`| head`, a closed terminal) does not stop the work."""
    _out(text + "\n")


def flush() -> None:
    """Writes out what others have printed; if that fails, it is lost like what `say` prints."""
    _out("")


def lost() -> str | None:
    """Why something could not be written, such as a full disk; None if all was written, or the reader had enough."""
    return _lost[0] if _lost else None


_lost: list[str] = []


def _out(text: str) -> None:
    problem = streams.write(text)
    if problem is not None:
        _lost.append(problem)


@dataclass
class Step:
    """A step under way; `note` says what it is working on."""

    label: str
    note: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Progress:
    """Steps that may run at the same time, in threads. Use as a context manager; nothing is left on the terminal."""

    def __init__(self) -> None:
        self._steps: list[Step] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._painter = threading.Thread(target=self._paint, daemon=True)

    def __enter__(self) -> "Progress":
        if on_terminal():
            self._painter.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._painter.is_alive():
            self._painter.join()

    @contextlib.contextmanager
    def step(self, label: str) -> Iterator[Step]:
        """A step from here to the end of the block; says how long it took, or that it failed."""
        step = Step(label)
        with self._lock:
            self._steps.append(step)
            if not on_terminal():
                say(f"  … {label}")
        failed = True
        try:
            yield step
            failed = False
        finally:
            with self._lock:
                self._steps.remove(step)
                self._wipe()
                mark = red("✗") if failed else green("✓")
                say(f"  {mark} {label}  {dim(f'{step.seconds:.1f} s')}")

    def _paint(self) -> None:
        while not self._over.wait(0.2):
            with self._lock:
                self._wipe()
                _out(self._line())
        with self._lock:
            self._wipe()

    def _line(self) -> str:
        """What is under way, in one line that fits the terminal."""
        if not self._steps:
            return ""
        seconds = max(step.seconds for step in self._steps)
        under_way = " · ".join(f"{step.label}{': ' + step.note if step.note else ''}" for step in self._steps)
        return dim(f"  … {seconds:3.0f} s  {under_way}"[: shutil.get_terminal_size().columns - 1])

    def _wipe(self) -> None:
        if on_terminal():
            _out("\r\033[K")
