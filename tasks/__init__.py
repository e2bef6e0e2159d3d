"""The Celery application and its tasks: `persist_text` and `embed_text`, which it chains, and their upkeep.

Their names (task_names.py) are all that the bridge and the APIs need; the tasks themselves, and with them the database,
are imported only by who asks for them.
"""

from importlib import import_module
from typing import Any

# Where each task is, by its name without the package's.
MODULES = {
    "persist_text": "tasks.persist",
    "record_dead_letters": "tasks.persist",
    "embed_text": "tasks.embed",
    "sweep": "tasks.upkeep",
    "tend_index": "tasks.indexes",
    "replay_dead_letters": "tasks.actions",
    "drop_dead_letters": "tasks.actions",
    "retry_failures": "tasks.actions",
}


def __getattr__(name: str) -> Any:
    if name in MODULES:
        return getattr(import_module(MODULES[name]), name)
    raise AttributeError(f"module 'tasks' has no attribute {name!r}")
