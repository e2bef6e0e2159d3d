"""What the stack itself says in a log: lines for people as they are, and with LOG_FORMAT=json an object a line.

The object has the keys that every part's lines have. The stack does not touch the parts' own logging.
"""

import json
from datetime import UTC, datetime

from settings import Settings


def told(settings: Settings, line: str, *, process: str, logger: str, pid: int) -> str:
    """The line as a log takes it, without an end of line."""
    if settings.log_format != "json":
        return line
    time = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    fields = {"time": time, "level": "INFO", "logger": logger, "message": line, "process": process, "pid": pid}
    return json.dumps(fields)
