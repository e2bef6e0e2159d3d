"""Marks of workers that are to end for good. The supervisor starts again whatever has ended, so the process that it
starts in the place of a marked worker only waits to be stopped.

A mark counts as long as the command that has set it lives: a killed command leaves no worker waiting for ever.
"""

import json
import os
from dataclasses import asdict
from pathlib import Path

from settings import Settings
from stack import places
from stack.processes import Identity, alive, identity


def mark(settings: Settings, name: str) -> None:
    itself = identity(os.getpid())
    assert itself is not None
    _waiting(settings, name).unlink(missing_ok=True)  # of a command that was killed
    _file(settings, name).write_text(json.dumps(asdict(itself)))


def unmark(settings: Settings, name: str) -> None:
    _file(settings, name).unlink(missing_ok=True)
    _waiting(settings, name).unlink(missing_ok=True)


def is_marked(settings: Settings, name: str) -> bool:
    try:
        return alive(Identity(**json.loads(_file(settings, name).read_text())))
    except (FileNotFoundError, ValueError, TypeError):
        return False


def say_waiting(settings: Settings, name: str) -> None:
    """Called by the process that was started in the place of a marked worker, once it can be stopped: a signal that
    comes between the supervisor's fork and its exec is lost."""
    _waiting(settings, name).touch()


def is_waiting(settings: Settings, name: str) -> bool:
    return _waiting(settings, name).exists()


def _waiting(settings: Settings, name: str) -> Path:
    return places.run(settings) / f"{name}.waiting"


def _file(settings: Settings, name: str) -> Path:
    return places.run(settings) / f"{name}.leaving"
