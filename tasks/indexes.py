"""The clock of the search indexes. A task only wakes a thread that looks whether something is due; another one waits
for PostgreSQL to build it, so the queue `persist` goes on meanwhile."""

import logging
import threading
import time
from functools import partial

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

import settings
import task_names
from db import index_catalogue, index_plan, session, text_index, vector_index
from tasks import resources
from tasks.app import app
from tasks.outages import reason

log = logging.getLogger(__name__)

# After a failed build: whatever stood in its way will not be gone at once.
PAUSE_SECONDS = 30.0


class Watch:
    """What this process has seen of the vectors that come in, and its two threads."""

    def __init__(self) -> None:
        self.last_id: int | None = None
        self.seen_at = 0.0
        self.known = False
        self.last_rate = self.rate = 0.0
        self.quiet_since = float("inf")
        self.taken_in = 0  # the highest id when the text indexes last took in what waits beside them
        self.not_before = float("-inf")
        self.looking: threading.Thread | None = None
        self.building: threading.Thread | None = None

    def see(self, last_id: int, now: float) -> bool:
        """Notes the highest id; returns whether the rate is known, which takes two looks at some distance."""
        if self.last_id is not None and now - self.seen_at < 0.5:
            return self.known
        first = self.last_id is None
        before, self.last_rate = self.last_rate, 0.0
        if self.last_id is not None:
            self.last_rate = max(0, last_id - self.last_id) / (now - self.seen_at)
        # The higher one of two: the look in which a burst ends must not seem to be a slow flow.
        self.rate = max(before, self.last_rate)
        if first or self.last_rate > index_plan.QUIET_ROWS_PER_SECOND:
            self.quiet_since = now
        self.last_id, self.seen_at, self.known = last_id, now, not first
        return self.known

    @property
    def texts_wait(self) -> bool:
        """Whether enough rows came in since the text indexes took some in, as far as this process knows."""
        last_id = self.last_id or 0
        waiting = last_id - self.taken_in if last_id >= self.taken_in else last_id  # else the table was made anew
        return waiting >= index_plan.WAITING_ROWS and self.rate <= index_plan.BURST_ROWS_PER_SECOND

    @property
    def is_building(self) -> bool:
        return self.building is not None and self.building.is_alive()


watch = Watch()


@app.task(name=task_names.TEND_INDEX, ignore_result=True, send_events=False)
def tend_index() -> None:
    """Has a thread look whether something is due; calls that piled up behind a backlog count as one."""
    if watch.looking is None or not watch.looking.is_alive():
        watch.looking = threading.Thread(target=look, name="index look", daemon=True)
        watch.looking.start()


def look() -> None:
    """Starts what is due for the search indexes, one piece at a time, and breaks off what stands in the way."""
    config = settings.load()
    now = time.monotonic()
    try:
        with resources.side_engine().begin() as connection:
            if not watch.see(index_catalogue.last_id(connection), now):
                return
            if watch.is_building or index_catalogue.is_building(connection):
                if vector_index.give_way(connection, config, watch.rate):
                    log.info("a merge gives way: %.0f vectors/s come in", watch.rate)
                return
            quiet = now - watch.quiet_since
            if now < watch.not_before:
                return
            if vector_index.is_due(connection, config, watch.rate, quiet):
                work = partial(build, config, watch.rate, quiet)
            elif watch.texts_wait and text_index.wanted(config):
                work = partial(take_in, config)
            else:
                return
    except (SQLAlchemyError, psycopg2.Error) as error:
        log.warning("could not look whether an index is due: %s", reason(error))
        return
    watch.building = threading.Thread(target=work, name="index builder", daemon=True)
    watch.building.start()


def build(config: settings.Settings, rate: float, quiet_seconds: float) -> None:
    """What the builder's thread does. It may die with its process at any moment: the next builder takes over."""
    began = time.monotonic()
    try:
        part = vector_index.tend(config, rate, quiet_seconds)
        if part is not None:
            log.info("index part %d built in %.1f s", part, time.monotonic() - began)
    except SQLAlchemyError as error:
        gave_way = session.was_canceled(error)  # by vector_index.break_off: the builder has no statement_timeout
        watch.not_before = time.monotonic() + (PAUSE_SECONDS if not gave_way else 0.0)
        log.warning("an index was not built: %s", reason(error))


def take_in(config: settings.Settings) -> None:
    """What the builder's thread does where only texts wait beside their indexes."""
    last_id = watch.last_id or 0
    try:
        if vector_index.take_in_texts(config):
            watch.taken_in = last_id
    except SQLAlchemyError as error:
        watch.not_before = time.monotonic() + PAUSE_SECONDS
        log.warning("texts were not taken into their indexes: %s", reason(error))
