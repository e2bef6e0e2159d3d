"""The stack: installs, configures and supervises the parts of a system on one machine, without containers.

For tests and scripts: `local_part(settings, "postgres")` is one part that can be run by hand, and `parts(settings)` all
of them. Settings with free ports and a DATA_DIR of their own make a system that is separate from every other.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stack.errors import StackError, Unhealthy
    from stack.part import Part, Port
    from stack.plan import local_part, parts

__all__ = ["Part", "Port", "StackError", "Unhealthy", "local_part", "parts"]

_HOMES = {
    "Part": "stack.part",
    "Port": "stack.part",
    "StackError": "stack.errors",
    "Unhealthy": "stack.errors",
    "local_part": "stack.plan",
    "parts": "stack.plan",
}


def __getattr__(name: str) -> Any:
    """Imports on first use: `python -m stack` passes through here before it can handle a Ctrl-C."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
