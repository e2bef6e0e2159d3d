"""What all commands have in common: their exit codes, how their help is broken into lines, the type of a time-out, the
question before what cannot be taken back, and standard streams that are usable whatever a command was started with,
with no output that is lost unsaid.

Only the standard library, because the installation uses it before anything is installed.
"""

import argparse
import contextlib
import io
import os
import sys
import textwrap
from typing import Any

FAILED = 1
WRONG_USAGE = 2  # as argparse has it; also for a setting that cannot be used
INTERRUPTED = 130  # as a shell counts it: 128 + SIGINT


class HelpFormatter(argparse.HelpFormatter):
    """Breaks each line of a description or an epilog by itself, at the width of the terminal, and leaves a line that
    begins with a blank as it is, such as an example."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = (line if line.startswith(" ") else textwrap.fill(line, width) for line in text.splitlines())
        return "\n".join(indent + line for line in lines)


def prepare() -> None:
    """After this there is a standard input, output and error, and they take every character.

    In the place of a closed output comes one that cannot be written, so that it is told like a full disk. Nothing else
    that is opened later takes its number either.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # PYTHONUNBUFFERED asks for it, but then argparse writes its help itself, and passes over what goes wrong.
        sys.stdout.reconfigure(write_through=False)


def lose_what_cannot_be_written() -> None:
    """For what goes on whether anybody reads it or not, such as a worker: after this there is a standard input, output
    and error, they take every character, and what cannot be written is lost without an error. Else one would come
    whenever a child is started, which flushes both."""
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_RDONLY))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        try:
            number = os.open(os.devnull, os.O_WRONLY) if stream is None else stream.fileno()
        except io.UnsupportedOperation:  # no file, but what somebody has put into its place
            continue
        file = io.BufferedWriter(_LosingFile(number, "w", closefd=False))
        losing = io.TextIOWrapper(file, encoding="utf-8", errors="backslashreplace", line_buffering=True)
        setattr(sys, name, losing)
        setattr(sys, f"__{name}__", losing)  # on which Celery prints


class _LosingFile(io.FileIO):
    def write(self, data: Any) -> int:
        try:
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def write(text: str) -> str | None:
    """Writes text to standard output at once, "" only what others have printed. Returns why that failed, if it did: a
    reader that has enough (`| head`) is no failure. After either there is nothing to write to, and nothing fails."""
    try:
        if text:  # no byte at all is too much for a full disk
            sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output()
        return error.strerror or str(error)
    return None


def discard_output() -> None:
    """What is still buffered must not complain when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_code(ended: SystemExit) -> int:
    """The code with which argparse ends a command, after --help or wrong usage."""
    return ended.code if isinstance(ended.code, int) else FAILED


def seconds(given: str) -> float:
    """The type of an argument such as --timeout."""
    number = float(given)
    if not 0 <= number < float("inf") or not given.isascii():
        raise argparse.ArgumentTypeError("must be 0 or more seconds")
    return number


def confirmed(question: str) -> bool | None:
    """Whether the answer to a question is a yes, and nothing else, such as the end of the input. None, and nothing is
    asked, where there is no terminal to ask on."""
    if sys.stdin is None or not sys.stdin.isatty():
        return None
    # Not by input(), which asks on standard output, where that is kept in a file.
    _say(f"{question} [y/N] ")
    answer = sys.stdin.buffer.readline()
    if not answer.endswith(b"\n"):
        _say("\n")  # what is said next begins a line
    return answer.strip().lower() in (b"y", b"yes")


def _say(text: str) -> None:
    if sys.stderr is not None:
        with contextlib.suppress(OSError):
            sys.stderr.write(text)
            sys.stderr.flush()
