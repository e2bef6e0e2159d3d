"""How the commands of `python -m db` speak: what cannot be written ends them."""

import streams


class Unwritten(Exception):
    """What was to be shown could not be written; the message says why."""


def say(text: str) -> None:
    """A line of what was asked for. Raises Unwritten."""
    _write(text + "\n")


def flush() -> None:
    """Writes out what others have printed. Raises Unwritten."""
    _write("")


def _write(text: str) -> None:
    problem = streams.write(text)
    if problem is not None:
        raise Unwritten(f"standard output cannot be written: {problem}")
