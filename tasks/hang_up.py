"""SIGHUP at a worker: it ends when its task is done, as at SIGTERM.

An operator who sends it wants the worker to begin anew, with what the settings say now: whoever supervises it starts
another one. Celery's own restart in place would keep the environment and drop the last numbers and spans, and cannot
start `python -m tasks.celery` at all. A worker that was started to outlive its terminal (nohup) ignores it.
"""

import signal
from typing import Any

from celery import bootsteps, platforms
from celery.apps.worker import install_worker_term_handler


class HangUp(bootsteps.StartStopStep):  # type: ignore[misc]
    """Takes the signal from Celery, which has taken it just before the first step is started."""

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self.ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    def start(self, worker: Any) -> None:
        if self.ignored:
            platforms.signals.ignore("SIGHUP")
        else:
            install_worker_term_handler(worker, sig="SIGHUP")

    def stop(self, worker: Any) -> None:
        """Nothing: the signal may come twice."""
