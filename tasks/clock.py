"""Beat's scheduler: in memory, and silent towards a queue that nobody empties.

The schedule is one task a second, so there is nothing to remember over a restart, and no file that a crash could
damage. Without the look at the queue a night without persist workers would leave tens of thousands of sweeps in Redis.
"""

import logging
import time
from typing import Any

from celery.beat import ScheduleEntry, Scheduler, SchedulingError

from tasks.broker import BROKER_ERRORS, queue_length

log = logging.getLogger(__name__)

QUEUE_LIMIT = 200
COMPLAIN_SECONDS = 30.0


class Clock(Scheduler):  # type: ignore[misc]
    complained = float("-inf")

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        try:
            if queue_length("persist") < QUEUE_LIMIT:
                return super().apply_async(entry, producer=producer, advance=advance, **options)
            self.complain("the queue persist is long: is there a persist worker?")
        except (SchedulingError, *BROKER_ERRORS) as error:
            self.complain(f"broker away: {error}")
        if advance:
            self.reserve(entry)
        return None

    def is_due(self, entry: ScheduleEntry) -> Any:
        if entry.last_run_at > entry.default_now():  # the machine's clock was set back
            entry.last_run_at = entry.default_now()
        return super().is_due(entry)

    def complain(self, about: str) -> None:
        if time.monotonic() - self.complained > COMPLAIN_SECONDS:
            self.complained = time.monotonic()
            log.warning("no sweep sent, %s", about)
