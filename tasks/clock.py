"""Beat's scheduler: in memory, and silent towards a queue that nobody empties.

The schedule is one task a second, so there is nothing to remember over a restart, and no file that a crash could
damage. Without the look at the queue a night without persist workers would leave tens of thousands of sweeps in Redis.
"""

import logging
import time
from typing import Any

from celery import signals
from celery.apps import beat
from celery.beat import ScheduleEntry, Scheduler, SchedulingError

import streams
from tasks.broker import BROKER_ERRORS, RECONNECTING, length_at_priority, said_of
from telemetry import heartbeat, numbers_store

log = logging.getLogger(__name__)

QUEUE_LIMIT = 200
COMPLAIN_SECONDS = 30.0


@signals.beat_init.connect
def began(**_: object) -> None:
    numbers_store.begin("beat")


class Beat(beat.Beat):  # type: ignore[misc]
    """Beat without the tasks, which it sends by their names: they would bring the database's packages with them."""

    def init_loader(self) -> None:
        self.app.finalize()

    def run(self) -> None:
        streams.lose_what_cannot_be_written()
        super().run()


class Clock(Scheduler):  # type: ignore[misc]
    """Sends each entry at its interval by the machine's monotonic clock. Celery's own schedule goes by the wall clock:
    set back by a day, it would stand still for one."""

    complained = float("-inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.due: dict[str, float] = {}
        super().__init__(*args, **kwargs)

    def apply_async(self, entry: ScheduleEntry, producer: Any = None, advance: bool = True, **options: Any) -> Any:
        try:
            if length_at_priority("persist", 0) < QUEUE_LIMIT:
                return super().apply_async(entry, producer=producer, advance=advance, **options)
            self.complain("the queue persist is long: is there a persist worker, and does the database answer?")
        except (SchedulingError, *BROKER_ERRORS) as error:
            self.complain(f"broker away: {said_of('persist', error)}")
        if advance:
            self.reserve(entry)
        return None

    def tick(self, *_args: Any, **_kwargs: Any) -> float:
        """Sends what is due; returns the seconds until the next."""
        heartbeat.beat()
        now = time.monotonic()
        for name, entry in list(self.schedule.items()):
            if now >= self.due.get(name, now):
                self.due[name] = now + entry.schedule.run_every.total_seconds()
                self.apply_async(entry, producer=self.producer)
        return max(0.0, min(self.due.values(), default=now + 1) - time.monotonic())

    def _ensure_connected(self) -> Any:
        """Celery's own writes no heartbeat meanwhile, and its pauses grow to half a minute."""
        return self.connection.ensure_connection(
            lambda error, _pause: self.complain(f"broker away: {error}"), callback=heartbeat.beat, **RECONNECTING
        )

    def complain(self, about: str) -> None:
        if time.monotonic() - self.complained > COMPLAIN_SECONDS:
            self.complained = time.monotonic()
            log.warning("no task sent: %s", about)
