"""The streams of a command: made usable before it says anything, whatever it was started with."""

import io
import os
import sys


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
