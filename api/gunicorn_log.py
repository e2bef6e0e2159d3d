"""gunicorn's own lines, in the form of all the others, and like them without anything that a request says of a message.
gunicorn finds this class by its name (gunicorn.conf.py)."""

import logging
import sys
from typing import Any

from gunicorn import glogging

import settings as configuration
from telemetry import logs

UNREADABLE = "Invalid request from ip="
UNANSWERED = "Error handling request"
UNREAD = "Socket error processing request"


class Log(glogging.Logger):  # type: ignore[misc]
    def setup(self, cfg: Any) -> None:
        """Called in the main process, before there is an application; the workers inherit it."""
        super().setup(cfg)
        logs.name_process(str(cfg.proc_name).rpartition(":")[2].replace("_", "-"))
        if self.loglevel < logging.INFO:  # gunicorn would log each request's path, which may hold a source id
            self.error_log.setLevel(logging.INFO)
        lines = logs.formatter(configuration.load())
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(lines)

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Logs the address and the kind of fault of a request that cannot be read, without its bytes."""
        if msg.startswith(UNREADABLE):
            msg = ": ".join(msg.split(": ")[:2])
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Logs the traceback of a request over which the application failed, without its path. A client that did
        not send or take the rest in time (gunicorn.conf.py) is no failure."""
        if msg.startswith(UNREAD) and isinstance(sys.exception(), BlockingIOError):
            return
        if msg.startswith(UNANSWERED):
            msg, args = UNANSWERED, ()
        super().exception(msg, *args, **kwargs)
