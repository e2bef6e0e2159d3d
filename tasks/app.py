"""The Celery application: `celery -A tasks.app worker -Q persist`. All its settings are in celeryconfig.py."""

import logging
import os
from typing import Any

from billiard import pool
from celery import Celery
from celery.signals import after_setup_logger, celeryd_init

from tasks import transport

transport.install()
# A process of a worker that ends waits so long (30 s by default) until its last result has been read, which a main
# process that is ending itself does no more. The task was done, and may be done again.
pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10  # times 0.1 s

app = Celery("text-pipeline")
app.config_from_object("celeryconfig")
app.steps["worker"].add("tasks.pulse:Pulse")
app.steps["worker"].add("tasks.watchdog:Watchdog")

# They write two lines for each task, and the sweep alone is one a second. Flower shows the tasks; LOG_LEVEL=DEBUG the
# lines.
CHATTY = ("celery.beat", "celery.app.trace", "celery.worker.strategy")


@after_setup_logger.connect
def hush(loglevel: int | None = None, **_: object) -> None:
    if loglevel is None or loglevel > logging.DEBUG:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)


@celeryd_init.connect
def name_by_queue(instance: Any = None, options: dict[str, Any] | None = None, **_: object) -> None:
    """A worker that was started without a name is called after its queue: embed@host.1234 instead of celery@host."""
    queues = (options or {}).get("queues") or ""
    queue = queues if isinstance(queues, str) else ",".join(queues)
    name, _at, host = instance.hostname.partition("@")
    if name == "celery" and queue and "," not in queue:
        instance.hostname = f"{queue}@{host}.{os.getpid()}"
