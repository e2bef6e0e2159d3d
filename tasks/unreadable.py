"""What becomes of a message that has the form of a task (tasks/task_messages.py) and that Celery stumbles over all the
same, such as one with the callback of a task that nobody has: it ends no worker, and is not put back for the next one.
"""

import logging
from collections.abc import Callable
from typing import Any

from celery.worker import consumer, state

from tasks.broker import BROKER_ERRORS

log = logging.getLogger(__name__)

# What Python raises over a value of another form than expected. Errors of the tasks themselves do not come so far:
# Celery has made results of them. To be ended (SystemExit), to be out of memory or without the broker is none of these.
STUMBLES = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError)


class Consumer(consumer.Consumer):  # type: ignore[misc]
    """Celery's consumer, which drops such a message and says so."""

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

    def on_connection_error_after_connected(self, error: Exception) -> None:
        if isinstance(error, STUMBLES) and not isinstance(error, BROKER_ERRORS):  # a KeyError is an outage to Celery
            self.give_nothing_back()
        super().on_connection_error_after_connected(error)

    def give_nothing_back(self) -> None:
        """As the channel closes it would put what was in hand into its queue again, where it ends the next worker.
        Leases bring back what was not to blame."""
        if (tasks := getattr(self, "task_consumer", None)) is not None:
            tasks.channel.do_restore = False


def forget(message: Any) -> None:
    """It counts neither as taken nor as being worked on."""
    for request in [each for each in state.requests.values() if each.message is message]:
        state.task_ready(request)
    if not message.acknowledged:
        message.ack()
