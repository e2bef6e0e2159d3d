"""The numbers of the bridge and the workers: which there are, and the counting of them in each process.

Counting is an addition to a dict. What was counted goes to Redis about once a second (telemetry/numbers_store.py),
where all processes add up; the search API shows it at /metrics and draws its charts from it.
"""

import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import task_names
from records import REASONS

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
FRESHNESS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
BATCH = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)

SEPARATOR = "\t"


@dataclass(frozen=True)
class Number:
    """A counter or, with `buckets` (upper bounds), a histogram, under its Prometheus name without `_total`.

    `labels` have few values each. A counter names those of each label in `values`, so that it is shown as 0 before
    anything was counted: Prometheus sees no increase in a series that begins with its first burst. A number with
    `history` is kept for the charts too.
    """

    name: str
    help: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[str, ...], ...] = ()
    buckets: tuple[float, ...] = ()
    history: bool = False


CONSUMED = Number("bridge_records_consumed", "Records that the bridge took from Kafka", history=True)
DEAD_LETTERS = Number(
    "dead_letters", "Records noted as dead letters", ("reason",), (tuple(sorted(REASONS)),), history=True
)
PERSISTED = Number(
    "persisted_records",
    "Records that persist_text is done with: stored (a row was written), unchanged (older, repeated or a deletion) or "
    "rejected",
    ("outcome",),
    (("stored", "unchanged", "rejected"),),
    history=True,
)
EMBEDDED = Number("embedded_messages", "Messages whose vectors were stored", history=True)
EMBEDDING_FAILURES = Number("embedding_failures", "Messages that were marked as failed")
FRESHNESS = Number(
    "embedding_freshness_seconds",
    "From a record's timestamp in Kafka (a row's, where it was typed by hand) to its text being searchable; a sample, "
    "without texts that were edited by hand, embedded once more, or came of a replayed dead letter",
    buckets=FRESHNESS_SECONDS,
    history=True,
)
BATCH_SIZE = Number("task_batch_size", "Records or messages that one task carried", ("task",), buckets=BATCH)
RUNTIME = Number("celery_task_runtime_seconds", "Time that a task ran", ("task",), buckets=SECONDS)
TASKS = Number(
    "celery_tasks",
    "Tasks that ended, by state: success, retry, failure, ignored (it goes on as another task)",
    ("task", "state"),
    (tuple(name.removeprefix("tasks.") for name in task_names.ALL), ("success", "retry", "failure", "ignored")),
)

ALL = (CONSUMED, DEAD_LETTERS, PERSISTED, EMBEDDED, EMBEDDING_FAILURES, FRESHNESS, BATCH_SIZE, RUNTIME, TASKS)
BY_NAME: Mapping[str, Number] = {number.name: number for number in ALL}

# The field of a histogram's sum. Its other fields are the numbers of its buckets, the last of which has no bound.
SUM = "sum"


class Tally:
    """What was counted and not yet taken, by field: name, label values and, for histograms, bucket. Safe for threads.

    There are as many fields as numbers, labels and buckets, so it stays small however long nobody takes it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[str, float] = {}

    def add(self, number: Number, amount: float = 1, *labels: str) -> None:
        with self._lock:
            self._add(field(number, labels), amount)

    def observe(self, number: Number, values: Iterable[float], *labels: str) -> None:
        with self._lock:
            for value in values:
                self._add(field(number, labels, str(bisect_left(number.buckets, value))), 1)
                self._add(field(number, labels, SUM), value)

    def take(self) -> dict[str, float]:
        """All of it; the tally is empty then."""
        with self._lock:
            taken, self._counted = self._counted, {}
        return taken

    def put_back(self, taken: Mapping[str, float]) -> None:
        """Takes back what was taken and could not be delivered."""
        with self._lock:
            for name, amount in taken.items():
                self._add(name, amount)

    def _add(self, name: str, amount: float) -> None:
        self._counted[name] = self._counted.get(name, 0) + amount


def field(number: Number, labels: Iterable[str], bucket: str = "") -> str:
    return SEPARATOR.join((number.name, *labels, bucket) if number.buckets else (number.name, *labels))


TALLY = Tally()


def consumed(records: int) -> None:
    """For the bridge: so many records came with one poll."""
    if records:
        TALLY.add(CONSUMED, records)
