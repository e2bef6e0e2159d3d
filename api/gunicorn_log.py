"""gunicorn's own lines, in the form of all the others. It finds this class by its name (gunicorn.conf.py)."""

from typing import Any

from gunicorn import glogging

import settings as configuration
from telemetry import logs


class Log(glogging.Logger):  # type: ignore[misc]
    def setup(self, cfg: Any) -> None:
        """Called in the main process, before there is an application; the workers inherit it."""
        super().setup(cfg)
        logs.name_process(str(cfg.proc_name).rpartition(":")[2].replace("_", "-"))
        lines = logs.formatter(configuration.load())
        for log in (self.error_log, self.access_log):
            for handler in log.handlers:
                handler.setFormatter(lines)
