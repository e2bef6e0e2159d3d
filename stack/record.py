"""What is written down about each start of a part, so that a later command knows its process and its restarts.

One small JSON file a part below DATA_DIR/run, written by the process itself just before it becomes the part.
"""

import json
import os
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from settings import Settings
from stack import places
from stack.processes import Identity, identity

# A part that lived for less than this died early; its next starts wait longer and longer.
SHORT_LIFE = 10.0
LONGEST_WAIT = 10.0
# One that died so often is not waited for any longer: what was in its way for a moment only is gone by then.
HOPELESS_RESTARTS = 4
# All records have it, so that one covers another.
_LENGTH = 300


@dataclass(frozen=True)
class Record:
    """The latest start of a part. `starts` counts them since the system was started; `since` is time.monotonic()."""

    process: Identity
    stop_signal: int
    starts: int
    early_deaths: int
    since: float

    @property
    def restarts(self) -> int:
        return self.starts - 1

    @property
    def waits_until(self) -> float:
        """When the part itself begins, in time.monotonic(): after an early death, only after a wait."""
        if self.early_deaths == 0:
            return self.since
        return self.since + min(LONGEST_WAIT, 0.25 * 2.0**self.early_deaths)


def next_record(previous: Record | None, process: Identity, stop_signal: int, now: float) -> Record:
    """The record of a start that follows `previous`; pure, so that the waiting times can be tested."""
    if previous is None:
        return Record(process, stop_signal, starts=1, early_deaths=0, since=now)
    early = previous.early_deaths + 1 if now - previous.waits_until < SHORT_LIFE else 0
    return Record(process, stop_signal, starts=previous.starts + 1, early_deaths=min(early, 10), since=now)


def read(settings: Settings, name: str) -> Record | None:
    """The record of a part, or None when it has none or an unreadable one (a machine that lost power)."""
    try:
        fields = json.loads(_file(settings, name).read_text())
        return Record(**{**fields, "process": Identity(**fields["process"])})
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def hopeless(settings: Settings, name: str) -> str | None:
    """Why there is no point in waiting for a part that dies again and again, if it does."""
    known = read(settings, name)
    return f"it died {known.restarts} times" if known is not None and known.restarts >= HOPELESS_RESTARTS else None


def write_own(settings: Settings, name: str, stop_signal: str) -> Record:
    """Writes down that this process is the part, and returns the record."""
    process = identity(os.getpid())
    assert process is not None
    number = signal.Signals[f"SIG{stop_signal}"].value
    record = next_record(read(settings, name), process, number, time.monotonic())
    write(settings, name, record)
    return record


def write(settings: Settings, name: str, record: Record) -> None:
    file, content = _file(settings, name), json.dumps(asdict(record)).ljust(_LENGTH)
    half = file.with_suffix(".half")
    try:
        half.write_text(content)
        half.replace(file)
    except OSError:  # a full disk: over the record before, which takes no further room
        with open(os.open(file, os.O_WRONLY | os.O_CREAT, 0o644), "w") as stream:
            stream.write(content)


def all_records(settings: Settings) -> dict[str, Record]:
    names = [file.name.removesuffix(".start.json") for file in places.run(settings).glob("*.start.json")]
    return {name: record for name in names if (record := read(settings, name)) is not None}


def clear(settings: Settings) -> None:
    for file in places.run(settings).glob("*.start.json"):
        file.unlink(missing_ok=True)


def note_folder(settings: Settings) -> None:
    """Notes of which folder these records are."""
    _folder(settings).write_text(str(places.run(settings).stat().st_ino))


def is_copied(settings: Settings) -> bool:
    """Whether the records came here with a copy of another DATA_DIR: they are of that system's processes. A folder that
    was moved is still the same."""
    try:
        return _folder(settings).read_text() != str(places.run(settings).stat().st_ino)
    except FileNotFoundError:
        return False


def forget(settings: Settings, name: str) -> None:
    """Removes the record of a part that exists no more."""
    _file(settings, name).unlink(missing_ok=True)


def _folder(settings: Settings) -> Path:
    return places.run(settings) / "folder"


def _file(settings: Settings, name: str) -> Path:
    return places.run(settings) / f"{name}.start.json"
