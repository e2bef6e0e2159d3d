"""What a running system is known by: the settings it was started with and its parts, written down at its start.

So stopping it, or asking how it is, needs no setting but its DATA_DIR.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from settings import Settings
from stack import places
from stack.part import Part, Port


@dataclass(frozen=True)
class KnownPart:
    """What of a part is known without building it: its name, its place in the order of stopping, its addresses."""

    name: str
    layer: int
    ports: tuple[Port, ...]


@dataclass(frozen=True)
class System:
    """A system that was started. `ready` says that its start came to its end, and that no stop has begun."""

    settings: Settings
    parts: tuple[KnownPart, ...]
    ready: bool


def write(settings: Settings, parts: Iterable[Part | KnownPart], *, ready: bool) -> None:
    """Writes the system down, readable by its owner only, because the settings hold passwords."""
    known = [KnownPart(part.name, part.layer, part.ports) for part in parts]
    content = {"settings": asdict(settings), "parts": [asdict(part) for part in known], "ready": ready}
    file = _file(settings)
    half = file.with_suffix(".half")
    half.touch(mode=0o600)
    half.write_text(json.dumps(content, indent=1))
    half.replace(file)


def read(settings: Settings) -> System | None:
    """The system in the DATA_DIR of these settings, or None when none was started there (or by another version)."""
    try:
        content = json.loads(_file(settings).read_text())
        known = {field.name for field in fields(Settings)}
        chosen = {name: value for name, value in content["settings"].items() if name in known}
        parts = tuple(
            KnownPart(part["name"], part["layer"], tuple(Port(**port) for port in part["ports"]))
            for part in content["parts"]
        )
        return System(Settings(**chosen), parts, bool(content["ready"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def forget(settings: Settings) -> None:
    _file(settings).unlink(missing_ok=True)


def _file(settings: Settings) -> Path:
    return places.run(settings) / "system.json"
