"""How the commands of `python -m db` speak: streams that take every character, and no output that is lost unsaid."""

import io
import os
import sys


class Unwritten(Exception):
    """What was to be shown could not be written; the message says why."""


def prepare() -> None:
    """After this there is a standard input, output and error.

    In the place of a closed output comes one that cannot be written: so that is told like a full disk, and no
    connection that is opened later takes its number.
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


def say(text: str) -> None:
    """A line of what was asked for. Raises Unwritten; a reader that has enough (`| head`) is no error."""
    write(text + "\n")


def flush() -> None:
    """Writes out what others have printed. Raises Unwritten."""
    write("")


def write(text: str) -> None:
    try:
        if text:  # no byte at all is too much for a full disk
            sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        # What is still buffered must not complain when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise Unwritten(f"standard output cannot be written: {error.strerror or error}") from error
