"""The pulse of a part that listens on no port: its loop calls `beat`; `python -m telemetry.heartbeat` asks if it did.

For health checks of containers, one part each: a loop that hangs no longer beats, while a check for a process alone
would pass. Without HEARTBEAT_FILE nothing is written. Only the standard library is used: it is run every few seconds.
"""

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import settings as configuration
import streams

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0
# The longest that a healthy loop may take for one round: several time-outs of a broker that is away (10 s each).
STALE_SECONDS = 60.0

_next = float("-inf")


def beat() -> None:
    """Says that the loop runs. Cheap enough for every round: it writes once a second, and never raises."""
    global _next
    now = time.monotonic()
    if now < _next:
        return
    _next = now + BEAT_SECONDS
    name = configuration.load().heartbeat_file
    if name:
        write(Path(name), now)


def write(file: Path, now: float) -> None:
    """Replaces the file, so that a reader never sees half a number."""
    half = file.with_name(f"{file.name}.new")
    try:
        half.write_text(f"{now:.3f}\n")
        half.replace(file)
    except OSError as error:  # the part itself matters more than its heartbeat
        log.warning("no heartbeat written: %s", error)


def problem(file: Path) -> str | None:
    """Why the part that beats into this file is not well, or None.

    A beat is a time of the machine's monotonic clock, which all its processes share and nobody sets. One in the future
    is from before a restart of the machine.
    """
    try:
        age = time.monotonic() - float(file.read_text())
    except FileNotFoundError:
        return "no heartbeat yet"
    except (OSError, ValueError) as error:
        return f"{file}: {error}"
    if age < -BEAT_SECONDS:
        return "no heartbeat since the machine was started"
    return None if age < STALE_SECONDS else f"no heartbeat for {age:.0f} s"


def main(arguments: Sequence[str]) -> int:
    argparse.ArgumentParser(
        prog="python -m telemetry.heartbeat",
        description="Says whether the part that beats into the file HEARTBEAT_FILE is well.",
        epilog="exit codes: 0 it is, 1 it is not, 2 wrong usage or setting",
    ).parse_args(arguments)
    try:
        name = configuration.load().heartbeat_file
    except configuration.InvalidSetting as error:
        print(f"heartbeat: {error}", file=sys.stderr)
        return streams.WRONG_USAGE
    found = problem(Path(name)) if name else "set HEARTBEAT_FILE for the part and for this check"
    print(found or "ok")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
