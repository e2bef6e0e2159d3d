"""What is done at the start of each process of a worker, for one whose pool has threads (`-P threads`) or greenlets.

Celery tells the processes of prefork that they start, and the one of solo, and no other.
"""

from typing import Any

from celery import bootsteps, signals

TOLD = ("prefork", "solo")


def is_told(pool_class: type) -> bool:
    """Whether Celery sends worker_process_init where this pool works. Somebody's own pool may stand on one of these."""
    return any(each.__module__.rpartition(".")[2] in TOLD for each in pool_class.__mro__)


class OneProcess(bootsteps.StartStopStep):  # type: ignore[misc]
    requires = {"celery.worker.components:Pool"}  # noqa: RUF012 - Celery's own form

    def include_if(self, worker: Any) -> bool:
        return not is_told(worker.pool_cls)

    def start(self, worker: Any) -> None:
        signals.worker_process_init.send(sender=worker.hostname)

    def stop(self, worker: Any) -> None:
        """Nothing: what is to be done at the end of this process is done by atexit."""
