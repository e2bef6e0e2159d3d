"""The Celery application and its tasks: `persist_text` and `embed_text`, which it chains, and their upkeep.

The names are all that the bridge and the APIs need; the tasks themselves, and with them the database, are imported only
by who asks for them.
"""

from importlib import import_module
from typing import Any

PERSIST_TEXT = "tasks.persist_text"
RECORD_DEAD_LETTERS = "tasks.record_dead_letters"
EMBED_TEXT = "tasks.embed_text"
SWEEP = "tasks.sweep"

_MODULES = {
    "persist_text": "tasks.persist",
    "record_dead_letters": "tasks.persist",
    "embed_text": "tasks.embed",
    "sweep": "tasks.upkeep",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
