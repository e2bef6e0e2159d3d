"""The heartbeat of Celery's parts: of a worker's event loop, and of beat's.

A worker beats from a timer of its event loop. One that works itself (`--pool solo`) stands still there while it has a
task, so a thread beats then, and only then. While the broker is away that loop stands still, and the attempts to
reconnect beat instead, because a restart would mend nothing then. A task that goes on and on stops the beats: its
process hangs.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from celery.exceptions import WorkerTerminate
from celery.worker import state

import settings
from tasks import unreadable
from tasks.broker import BROKER_ERRORS, RECONNECTING
from telemetry import heartbeat

EXIT_FAILURE = 1

TELL_SECONDS = 0.5

# No task takes so long: it has half a megabyte of texts at most, or one text (tasks.task_texts), some minutes of a slow
# model on one thread.
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


class Consumer(unreadable.Consumer):
    """Celery's consumer, which beats with every attempt to reach the broker, and tries again within 3 s. What it tells
    the monitor of its tasks goes out together, twice a second: a message for each would cost a tenth of a task."""

    tells_next = 0.0

    def __init__(self, *args: Any, app: Any = None, pool: Any = None, **kwargs: Any) -> None:
        super().__init__(*args, app=app, pool=pool, **kwargs)
        if works_itself(type(pool)):
            app.conf.worker_soft_shutdown_timeout = 0.0  # it would be slept through in the middle of the task

    def cancel_active_requests(self) -> None:
        """What a cold stop (SIGQUIT, or the second Ctrl-C) does about the tasks in hand. A worker that works itself is
        in the middle of one here, as this is called by a signal's handler: there the task ends by the exception, which
        is not one that could be taken for a fault of its own. Leases bring it back."""
        if not works_itself(type(self.pool)):
            super().cancel_active_requests()
        elif state.active_requests:
            raise WorkerTerminate(EXIT_FAILURE)

    def on_send_event_buffered(self) -> None:
        now = time.monotonic()
        if self.hub and now >= self.tells_next:  # else it is on its way, or its timer went with a lost connection
            self.tells_next = now + TELL_SECONDS
            self.hub.call_later(TELL_SECONDS, self.tell)

    def tell(self, *, kept: bool = True) -> None:
        """Sends the events that have gathered. With `kept` it first tries those once more that failed before, one by
        one: with a broker that is silent, each costs a time-out."""
        if self.event_dispatcher:
            with contextlib.suppress(*BROKER_ERRORS):
                self.event_dispatcher.flush(errors=kept)

    def on_connection_error_after_connected(self, error: Exception) -> None:
        self.tell(kept=False)  # in vain, but Celery keeps for the next connection only what it has tried to tell
        super().on_connection_error_after_connected(error)
        if isinstance(error, self.channel_errors):  # it can be reached, so that reaching it takes no time
            pulse()
            time.sleep(RECONNECTING["interval_max"])

    def shutdown(self) -> None:  # the pool has ended by now, and told of its last tasks
        if self.connection:
            self.tell(kept=False)
        super().shutdown()

    def ensure_connected(self, conn: Any) -> Any:
        connect = conn.ensure_connection

        def beating(*args: Any, callback: Callable[[], None], **kwargs: Any) -> Any:
            def between() -> None:  # kombu calls it once a second while it waits for its next attempt
                pulse()
                callback()

            return connect(*args, callback=between, **kwargs, **RECONNECTING)

        conn.ensure_connection = beating
        try:
            return super().ensure_connected(conn)
        finally:
            del conn.ensure_connection
