"""A worker's consumer, which celeryconfig.py names: Celery's own, but it beats while it seeks the broker, tells the
monitor of many tasks at once, and in a cold stop ends the task in hand too.

And it outlives a message that has the form of a task (tasks/task_messages.py) and that Celery stumbles over all the
same, such as one with the callback of a task that nobody has: that ends no worker, and is not put back for the next.
"""

import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import redis
from celery.events import EventDispatcher
from celery.exceptions import WorkerTerminate
from celery.worker import consumer, state

from tasks.broker import BROKER_ERRORS, RECONNECTING
from tasks.pulse import pulse, works_itself

log = logging.getLogger(__name__)

EXIT_FAILURE = 1

TELL_SECONDS = 0.5

# What Python raises over a value of another form than expected. Errors of the tasks themselves do not come so far:
# Celery has made results of them. To be ended (SystemExit), to be out of memory or without the broker is none of these.
STUMBLES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Dispatcher(EventDispatcher):  # type: ignore[misc]
    """Tries once, and keeps what does not go out. Celery's own tries for ever to tell that its worker lives: in the
    worker's loop, which stands still meanwhile, beats no more and takes no signal while Redis is silent."""

    def send(self, *args: Any, retry: bool = False, **fields: Any) -> Any:
        return super().send(*args, retry=False, **fields)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which beats with every attempt to reach the broker, and tries again within 3 s. What it tells
    the monitor of its tasks goes out together, twice a second: a message for each would cost a tenth of a task. A
    message that is no task it drops, and says so."""

    tells_next = 0.0

    def __init__(self, *args: Any, app: Any = None, pool: Any = None, **kwargs: Any) -> None:
        app.events.dispatcher_cls = Dispatcher
        super().__init__(*args, app=app, pool=pool, **kwargs)
        if works_itself(type(pool)):
            app.conf.worker_soft_shutdown_timeout = 0.0  # it would be slept through in the middle of the task

    def create_task_handler(self, **options: Any) -> Callable[[Any], None]:
        receive = super().create_task_handler(**options)

        def outlive(message: Any) -> None:
            try:
                receive(message)
            except BROKER_ERRORS:
                raise
            except STUMBLES as error:
                queues, kind = ", ".join(sorted(self.app.amqp.queues.consume_from)), type(error).__name__
                log.error("an item of the queue %s is no task, and is dropped: %s", queues, kind, exc_info=True)
                forget(message)

        return outlive

    def start(self) -> None:
        try:
            super().start()
        except Exception:
            self.give_nothing_back()
            raise
        finally:
            if works_itself(type(self.pool)):
                let_go()

    def give_nothing_back(self) -> None:
        """When the channel closes, it would put what was in hand back into its queue, where it would end the next
        worker. Leases bring back what was not to blame."""
        if (tasks := getattr(self, "task_consumer", None)) is not None:
            tasks.channel.do_restore = False

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
        if isinstance(error, redis.RedisError):  # Celery logs its repr, which has nothing of what Redis said
            log.warning("broker away: %s", error)
        if isinstance(error, STUMBLES) and not isinstance(error, BROKER_ERRORS):  # a KeyError is an outage to Celery
            self.give_nothing_back()
        if works_itself(type(self.pool)):
            let_go()
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


def let_go() -> None:
    """Where the worker itself was in the middle of a task as the connection failed, the error has ended the task, and
    Celery goes on counting it: the pulse would take it for one that hangs, and the watchdog for work in hand."""
    for request in tuple(state.active_requests):
        state.task_ready(request)


def forget(message: Any) -> None:
    """Makes the message count neither as taken nor as being worked on."""
    for request in [each for each in state.requests.values() if each.message is message]:
        state.task_ready(request)
    if not message.acknowledged:
        message.ack()
