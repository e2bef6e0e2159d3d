"""The Celery application: `celery -A tasks.app worker -Q persist`. All its settings are in celeryconfig.py."""

import logging

from celery import Celery
from celery.signals import after_setup_logger

app = Celery("text-pipeline")
app.config_from_object("celeryconfig")

# They write two lines for each task, and the sweep alone is one a second. Flower shows the tasks; LOG_LEVEL=DEBUG the
# lines.
CHATTY = ("celery.beat", "celery.app.trace", "celery.worker.strategy")


@after_setup_logger.connect
def hush(loglevel: int | None = None, **_: object) -> None:
    if loglevel is None or loglevel > logging.DEBUG:
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
