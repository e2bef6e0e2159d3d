"""How the pipeline is doing, for the console and /metrics: what the database, Kafka and Redis said last.

Each part is asked in the background, about once a second at most, however many look, and less often if it is slow.
Looking waits a moment for a first answer and never for a part that hangs, so a hundred open pages cost what one costs.
Only a scrape of /metrics has a question of its own, and waits a second at most: its counters must not go back
(`Watched.look_since`).
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from kafka.errors import KafkaError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from api.kafka_watch import KafkaWatch, Position
from db import console_queries, dead_letter_queries, queries
from db.session import first_line
from redis_keys import HEALTH, HEALTH_SECONDS, REFUSED, task_lists
from settings import Settings
from task_names import QUEUES
from tasks.broker import BROKER_ERRORS
from telemetry import numbers_store
from telemetry.numbers_store import Kept

log = logging.getLogger(__name__)

T = TypeVar("T")

KEEP_SECONDS = 1.0
SHARE = 20  # an answer that took a second is kept for twenty
LONGEST_SECONDS = 30.0  # and none for longer than this
FAILED_SECONDS = 10.0  # at most so long after a failure, so that a part that is back is soon seen
SILENT_SECONDS = 3.0  # a part that has not answered a question for so long is away
COUNTING_SECONDS = 30.0  # the same for counting, each statement of which is ended in time
FRESH_SECONDS = 10.0  # if the last answer is older, a new one is worth waiting for
PATIENCE_SECONDS = 1.0
WAITERS = 3  # at most so many of the API's threads wait for an answer; the others take what there is

NEWEST = 8
LISTED = 10

# The lists in Redis where the tasks of a queue wait.
QUEUE_LISTS = {name: task_lists(name) for name in QUEUES}


class Seen(NamedTuple, Generic[T]):
    """The last answer of a part (None: none yet), its age in seconds, what is wrong with the part, if anything, and
    when, by the monotonic clock, the last finished question began."""

    value: T | None
    age: float
    problem: str | None
    began: float


class Watched(Generic[T]):
    """A part that is asked in the background. Safe for threads. `errors` mean that it is away; any other error is a
    bug, which is shown as its problem too, and logged."""

    def __init__(
        self,
        ask: Callable[[], T],
        errors: tuple[type[Exception], ...],
        keep: float = KEEP_SECONDS,
        silent: float = SILENT_SECONDS,
    ) -> None:
        self.ask = ask
        self.errors = errors
        self.keep = keep
        self.silent = silent
        self._lock = threading.Lock()
        self._waiters = threading.Semaphore(WAITERS)
        self._answered = threading.Event()
        self._asked_at: float | None = None  # of the question under way
        self._next = 0.0
        self._value: T | None = None
        self._value_at = float("-inf")
        self._problem: str | None = None
        self._began = float("-inf")  # of the last question that has ended

    def refresh(self) -> None:
        """Asks, unless that is under way or was just done. Returns at once."""
        with self._lock:
            now = time.monotonic()
            if self._asked_at is None and now >= self._next:
                threading.Thread(target=self._run, name=f"watch {self.ask}", daemon=True).start()
                self._asked_at = now  # not before: without a thread it would be under way for ever
                self._answered.clear()

    def look(self, patience: float = PATIENCE_SECONDS) -> Seen[T]:
        """What is known, after a wait of at most `patience` seconds if that is not fresh."""
        self.refresh()
        seen = self._seen()
        if seen.problem is None and seen.age > FRESH_SECONDS and self._waiters.acquire(blocking=False):
            try:
                self._answered.wait(patience)
            finally:
                self._waiters.release()
            seen = self._seen()
        return seen

    def look_since(self, since: float, patience: float = PATIENCE_SECONDS) -> Seen[T]:
        """The answer to a question that began at `since` or later, however lately the part was asked before. If it does
        not come within `patience` seconds, that is the part's problem; if too many wait already, what is known."""
        until = time.monotonic() + patience
        seen = self._seen()
        if seen.began >= since or not self._waiters.acquire(blocking=False):
            return seen
        try:
            for _ in range(2):  # the one under way, if there is one, and the one after it
                if seen.began < since:
                    with self._lock:
                        self._next = 0.0
                    self.refresh()
                    self._answered.wait(max(0.0, until - time.monotonic()))
                    seen = self._seen()
        finally:
            self._waiters.release()
        late = "no answer in time" if seen.began < since else None
        return seen._replace(problem=seen.problem or late)

    def _seen(self) -> Seen[T]:
        with self._lock:
            now = time.monotonic()
            problem = self._problem
            if self._asked_at is not None and now - self._asked_at > self.silent:
                problem = f"no answer for {now - self._asked_at:.0f} s"
            return Seen(self._value, now - self._value_at, problem, self._began)

    def _run(self) -> None:
        began = time.monotonic()
        value, problem = None, None
        try:
            value = self.ask()
        except self.errors as error:
            problem = first_line(error)
        except Exception as error:
            problem = first_line(error)
            if problem != self._problem:  # else it would be a line a second
                log.error("asking a watched part failed", exc_info=error)
        finally:
            with self._lock:
                now = time.monotonic()
                if value is not None:
                    self._value, self._value_at = value, now
                self._problem = problem
                self._asked_at, self._began = None, began
                longest = LONGEST_SECONDS if problem is None else FAILED_SECONDS
                self._next = now + min(max(self.keep, SHARE * (now - began)), longest)
                self._answered.set()  # not later, or it might pass for the next question's answer


@dataclass(frozen=True)
class Contents:
    """What the database holds that may be waited for: messages, dead letters and failures, the newest of each."""

    newest: list[dict[str, Any]]
    letter_counts: list[dict[str, Any]]
    letters: dict[str, Any]
    failures: dict[str, Any]


@dataclass(frozen=True)
class Broker:
    """Tasks waiting in each queue, what the processes have counted, and why PostgreSQL stores nothing for a worker, if
    that is so."""

    queues: dict[str, int]
    kept: Kept
    refused: str | None = None


def database(contents: Seen[Contents], index: Seen[dict[str, Any]], broker: Seen[Broker]) -> Seen[Any]:
    """How PostgreSQL is: as its contents say, which are read quickly, unless only its index has a problem, or only a
    worker, for which it stores nothing."""
    seen = index if index.problem and not contents.problem else contents
    refused = None if broker.problem or broker.value is None else broker.value.refused
    return seen._replace(problem=f"a worker cannot store: {refused}") if refused and not seen.problem else seen


class Observed:
    """The watched parts of one API process."""

    def __init__(self, settings: Settings, reader: Engine) -> None:
        self.settings = settings
        self.reader = reader
        self.watch = KafkaWatch(settings)
        self.redis = numbers_store.connect(settings.redis_address)
        self.contents = Watched(self._contents, (SQLAlchemyError,))
        # A question of its own, because it counts rows: if a large table makes it slow, it is asked less often.
        self.index = Watched(self._index, (SQLAlchemyError,), silent=COUNTING_SECONDS)
        self.positions = Watched(self._positions, (KafkaError, OSError), keep=2.0)
        self.broker = Watched(self._broker, BROKER_ERRORS)

    def look(self) -> tuple[Seen[Contents], Seen[dict[str, Any]], Seen[dict[int, Position]], Seen[Broker]]:
        """Contents, index, positions and broker: all are asked at once, and waited for together."""
        for watched in (self.contents, self.index, self.positions, self.broker):
            watched.refresh()
        until = time.monotonic() + PATIENCE_SECONDS

        def left() -> float:
            return max(0.0, until - time.monotonic())

        return (
            self.contents.look(left()),
            self.index.look(left()),
            self.positions.look(left()),
            self.broker.look(left()),
        )

    def _contents(self) -> Contents:
        with self.reader.connect() as connection:
            return Contents(
                newest=queries.newest(connection, self.settings, limit=NEWEST)["messages"],
                letter_counts=dead_letter_queries.counts(connection),
                letters=dead_letter_queries.page(connection, limit=LISTED),
                failures=console_queries.failure_page(connection, limit=LISTED),
            )

    def _index(self) -> dict[str, Any]:
        with self.reader.connect() as connection:
            return queries.status(connection, queries.sizes(connection, self.settings))

    def _positions(self) -> dict[int, Position]:
        return self.watch.positions()

    def _broker(self) -> Broker:
        self.redis.set(HEALTH, 1, ex=HEALTH_SECONDS)
        pipeline = self.redis.pipeline(transaction=False)
        for lists in QUEUE_LISTS.values():
            for key in lists:
                pipeline.llen(key)
        pipeline.get(REFUSED)
        *found, refused = pipeline.execute()
        lengths = iter(found)
        queues = {name: sum(next(lengths) for _ in lists) for name, lists in QUEUE_LISTS.items()}
        return Broker(queues, numbers_store.read(self.redis), refused)
