"""A worker's heartbeat (beat's is in tasks/clock.py).

A worker beats from a timer of its event loop. One that works itself (`--pool solo`) stands still there while it has a
task, so a thread beats then, and only then. While the broker is away that loop stands still, and the attempts to
reconnect beat instead, because a restart would mend nothing then. A task that runs for HANGING_SECONDS stops the beats:
its process hangs.
"""

import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

import settings
from telemetry import heartbeat

# No task takes so long: it has half a megabyte of texts at most, or one text (tasks.task_texts), which a slow model on
# one thread embeds within minutes.
HANGING_SECONDS = 3_600.0


def pulse() -> None:
    if not hanging():
        heartbeat.beat()


def hanging() -> bool:
    """Whether a task of this worker runs for so long that it must be stuck."""
    now = time.time()
    return any(now - (request.time_start or now) > HANGING_SECONDS for request in state.active_requests)


def works_itself(pool_class: type) -> bool:
    """Whether the worker has no child for its tasks: whatever its main thread waits for, the task waits for too."""
    return pool_class.__module__.endswith(".solo")


class Pulse(bootsteps.StartStopStep):  # type: ignore[misc]
    """A timer in the worker's event loop."""

    requires = {"celery.worker.components:Timer"}  # noqa: RUF012 - Celery's own form
    timer: Any = None

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.ended = threading.Event()

    def include_if(self, worker: Any) -> bool:
        return bool(settings.load().heartbeat_file)

    def start(self, worker: Any) -> None:
        self.timer = worker.timer.call_repeatedly(heartbeat.BEAT_SECONDS, pulse, priority=10)
        if works_itself(worker.pool_cls):
            threading.Thread(target=self.beat_at_work, name="pulse", daemon=True).start()

    def beat_at_work(self) -> None:
        while not self.ended.wait(heartbeat.BEAT_SECONDS):
            try:
                if state.active_requests:
                    pulse()
            except RuntimeError:
                pass  # a task began or ended in that very moment; the next look comes

    def stop(self, worker: Any) -> None:
        self.ended.set()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
