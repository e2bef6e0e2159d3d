"""The end of a worker that was asked to end and does not come to it: with a Redis that is silent, what it still tells
and gives back costs time-outs one after the other, for half a minute together.

Once it has had no task in hand for some seconds it is ended: nothing is lost by that which a lease does not bring back.
A task is never cut short here.
"""

import logging
import os
import threading
import time
from queue import SimpleQueue
from typing import Any

from celery import bootsteps, signals
from celery.worker import state

from tasks.pulse import works_itself

log = logging.getLogger(__name__)

TURN_SECONDS = 0.5
IDLE_TURNS = 12  # an orderly end takes a second


class Ending(bootsteps.StartStopStep):  # type: ignore[misc]
    """A thread of a worker that works itself: children would outlive it."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.asked: SimpleQueue[None] = SimpleQueue()  # a signal's handler may put into it at any moment

    def start(self, worker: Any) -> None:
        if works_itself(worker.pool_cls):
            signals.worker_shutting_down.connect(self.ask, weak=False)
            threading.Thread(target=self.see_to_it, name="ending", daemon=True).start()

    def ask(self, **_: object) -> None:
        self.asked.put(None)

    def see_to_it(self) -> None:
        self.asked.get()
        idle = 0
        while idle < IDLE_TURNS:
            time.sleep(TURN_SECONDS)
            idle = 0 if state.active_requests else idle + 1
        log.warning("asked to end, without a task for %.0f s, and held up: ended", IDLE_TURNS * TURN_SECONDS)
        os._exit(0)

    def stop(self, worker: Any) -> None:
        """Nothing: what comes after this is what takes long."""
