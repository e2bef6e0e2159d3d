"""How much each stage did in the last minutes, from what the processes have counted: rates, a history, freshness."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from telemetry.numbers import CONSUMED, DEAD_LETTERS, EMBEDDED, FRESHNESS, PERSISTED, SEPARATOR, Number, field
from telemetry.numbers_store import BUCKET_SECONDS

Spans = Sequence[tuple[int, Mapping[str, float]]]

RATE_SPANS = 2
FRESHNESS_SPANS = 60  # five minutes

STAGES = {"read": CONSUMED, "stored": PERSISTED, "embedded": EMBEDDED}


@dataclass(frozen=True)
class Throughput:
    """Messages a second: of each stage now, and of each span of the history; seconds until searchable, or None."""

    now: dict[str, float]
    times: list[int]
    series: dict[str, list[float]]
    median_freshness: float | None
    slow_freshness: float | None  # 95 of 100 were faster
    dead_letters: int  # noted in the time of the history


def measure(history: Spans) -> Throughput:
    """The last span is still growing and left out."""
    spans = history[:-1]
    series = {
        stage: [total(number, counted) / BUCKET_SECONDS for _, counted in spans] for stage, number in STAGES.items()
    }
    latest = [counted for _, counted in spans[-FRESHNESS_SPANS:]]
    return Throughput(
        now={stage: sum(rates[-RATE_SPANS:]) / RATE_SPANS for stage, rates in series.items()},
        times=[time for time, _ in spans],
        series=series,
        median_freshness=quantile(0.5, latest),
        slow_freshness=quantile(0.95, latest),
        dead_letters=round(sum(total(DEAD_LETTERS, counted) for _, counted in history)),
    )


def total(number: Number, counted: Mapping[str, float]) -> float:
    """A counter's sum over all its labels."""
    return sum(amount for name, amount in counted.items() if name.partition(SEPARATOR)[0] == number.name)


def quantile(share: float, spans: Sequence[Mapping[str, float]]) -> float | None:
    """Of FRESHNESS, straight between the bounds of its bucket as Prometheus does it; None without observations."""
    bounds = FRESHNESS.buckets
    # By the names that are known here: a process of another version may have counted in more buckets.
    names = [field(FRESHNESS, (), str(place)) for place in range(len(bounds) + 1)]
    counts = [sum(counted.get(name, 0.0) for counted in spans) for name in names]
    rank = share * sum(counts)
    if not rank:
        return None
    before, place = 0.0, 0
    while before + counts[place] < rank and place < len(bounds):
        before += counts[place]
        place += 1
    if place == len(bounds):
        return bounds[-1]
    low = bounds[place - 1] if place else 0.0
    return low + (bounds[place] - low) * (rank - before) / counts[place]
