"""The watchdog of a worker: ends one that no longer takes tasks although its queue has some, so that whoever supervises
it starts another.

Celery's workers are known to stall after a lost connection to Redis: connected again, healthy by every look from
outside, and consuming nothing. Nothing is lost by the end of such a worker, which holds no task.
"""

import logging
import os
import signal
import threading
import time
from typing import Any

from celery import bootsteps
from celery.worker import state

from tasks.broker import BROKER_ERRORS, queue_length

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
STALLED_SECONDS = 30.0
# A look that comes so late means that this process was stopped itself, as by docker pause or a machine that slept.
FROZEN_SECONDS = 15.0
# Celery's soft shutdown ends well before; a main process that hangs in it is killed.
MERCY_SECONDS = 15.0


class Stall:
    """Since when a worker has taken nothing while work lay in its queues. Knows no time but what it is told."""

    def __init__(self) -> None:
        self.since: float | None = None
        self.looked = float("-inf")
        self.taken = -1

    def look(self, now: float, *, taken: int, busy: bool, waiting: int) -> float:
        """For how many seconds it has been stalled, given the tasks taken so far, whether it has any in hand, and how
        many wait."""
        frozen = now - self.looked > FROZEN_SECONDS
        if busy or not waiting or taken != self.taken or self.since is None or frozen:
            self.since, self.taken = now, taken
        self.looked = now
        return now - self.since


class Watchdog(bootsteps.StartStopStep):  # type: ignore[misc]
    """A thread in the worker's main process."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.ended = threading.Event()

    def start(self, worker: Any) -> None:
        threading.Thread(target=self.watch, args=(worker,), name="watchdog", daemon=True).start()

    def stop(self, worker: Any) -> None:
        self.ended.set()

    def watch(self, worker: Any) -> None:
        stall = Stall()
        while not self.ended.wait(LOOK_SECONDS):
            try:
                waiting = sum(queue_length(queue) for queue in consumed(worker))
            except BROKER_ERRORS:
                waiting = 0  # no stall then: nobody could take anything
            busy = bool(state.active_requests or state.reserved_requests)
            taken = sum(state.total_count.values())
            if stall.look(time.monotonic(), taken=taken, busy=busy, waiting=waiting) > STALLED_SECONDS:
                log.critical("stalled: %d tasks wait and none was taken for %.0f s; ending", waiting, STALLED_SECONDS)
                self.end(worker)
                return

    def end(self, worker: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(MERCY_SECONDS)  # a shutdown that works ends this process, and its thread, well before
        log.critical("stalled in its shutdown too: killed")
        for process in getattr(getattr(worker.pool, "_pool", None), "_pool", ()):
            os.kill(process.pid, signal.SIGKILL)
        os._exit(1)


def consumed(worker: Any) -> list[str]:
    """The queues that the worker means to consume: one that was cancelled by hand does not count."""
    consumer = getattr(worker.consumer, "task_consumer", None)
    return [queue.name for queue in consumer.queues] if consumer is not None else []
