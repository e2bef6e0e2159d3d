"""The state of the pipeline as the page shows it, made of what was observed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.console import shown, throughput
from api.console.throughput import Throughput
from api.kafka_watch import Position
from api.observed import Broker, Contents, Observed, Seen, database
from api.pipeline_numbers import PARTS
from task_names import QUEUES
from telemetry.numbers_store import BUCKET_SECONDS, HISTORY_SECONDS, count_by_part

SHOWN_PARTITIONS = 12
BEHIND_RECORDS = 1_000
BEHIND_TASKS = 50
BEHIND_SECONDS = 5.0

# Fields of GET /status that have a place of their own on the page; whatever else is there is listed as it is.
PLACED = frozenset(
    {"status", "model", "dimensions", "embedded", "pending", "failed", "oldest_pending_seconds", "reembedding"}
)

NOTHING = Contents([], [], {"letters": [], "next": None}, {"failures": [], "next": None})


@dataclass(frozen=True)
class Health:
    """The state in a word: "good", "busy" or "bad", and what it says."""

    kind: str
    said: str


def everything(observed: Observed) -> dict[str, Any]:
    """What the templates of the page and of its live parts take. Waits a second at most, for all parts together."""
    contents, index, positions, broker = observed.look()
    problems = away({"PostgreSQL": database(contents, index, broker), "Kafka": positions, "Redis": broker})
    lag = None if positions.value is None else sum(position.lag for position in positions.value.values())
    flow = None if broker.value is None else throughput.measure(broker.value.kept.history)
    processes = None if broker.value is None else count_by_part(broker.value.kept.processes, PARTS)
    held = contents.value or NOTHING
    return {
        "health": health(problems, processes if broker.problem is None else None, index.value, lag),
        "problems": problems,
        "partitions": sorted(furthest_behind(positions.value or {})),
        "more_partitions": max(0, len(positions.value or {}) - SHOWN_PARTITIONS),
        "behind_records": BEHIND_RECORDS,
        "lag": lag,
        "behind": {
            "lag": lag is not None and lag >= BEHIND_RECORDS,
            "persist": broker.value is not None and broker.value.queues["persist"] >= BEHIND_TASKS,
            "embedding": is_late(index.value),
        },
        "queues": dict.fromkeys(QUEUES) if broker.value is None else broker.value.queues,
        "processes": processes,
        "hosts": hosts(broker),
        "flow": flow,
        "history": history(flow),
        "history_said": history_said(flow),
        "index": index.value,
        "facts": facts(index.value or {}),
        "newest": held.newest,
        "known": held is not NOTHING,
        "letter_counts": held.letter_counts,
        "open_letters": None if held is NOTHING else sum(row["count"] for row in held.letter_counts),
        "letters": held.letters,
        "failures": held.failures,
        "topic": observed.settings.kafka_topic,
        "revision": revision(contents, index),
        "reason": None,
        "cursor": None,
        "cursor_of_failures": None,
    }


def furthest_behind(positions: Mapping[int, Position]) -> list[tuple[int, Position]]:
    return sorted(positions.items(), key=lambda each: (-each[1].lag, each[0]))[:SHOWN_PARTITIONS]


def is_late(index: Mapping[str, Any] | None) -> bool:
    return index is not None and (index["oldest_pending_seconds"] or 0) >= BEHIND_SECONDS


def away(parts: Mapping[str, Seen[Any]]) -> list[dict[str, Any]]:
    """The parts that do not answer: {"part", "problem", "age"}; age is that of the numbers still shown, or None."""
    return [
        {"part": name, "problem": seen.problem, "age": None if seen.value is None else seen.age}
        for name, seen in parts.items()
        if seen.problem is not None
    ]


def health(
    problems: list[dict[str, Any]],
    processes: Mapping[str, int] | None,
    index: Mapping[str, Any] | None,
    lag: int | None,
) -> Health:
    if problems:
        names = " and ".join(problem["part"] for problem in problems)
        return Health("bad", f"{names} {'is' if len(problems) == 1 else 'are'} away")
    missing = [part.replace("-", " ") for part, count in (processes or {}).items() if part in PARTS and not count]
    if missing:
        return Health("bad", f"No {' and no '.join(missing)} is up")
    if index is None or lag is None or processes is None:
        return Health("busy", "Looking…")
    if lag >= BEHIND_RECORDS or is_late(index):
        return Health("busy", "Catching up")
    return Health("good", "Up to date")


def hosts(broker: Seen[Broker]) -> dict[str, list[str]]:
    """By part, the machines that it runs on."""
    found: dict[str, set[str]] = {}
    for process in broker.value.kept.processes if broker.value else ():
        found.setdefault(process.part, set()).add(process.host)
    return {part: sorted(names) for part, names in found.items()}


def history(flow: Throughput | None) -> str:
    """For the chart: times and rates as JSON."""
    if flow is None:
        return "{}"
    series = {stage: [round(rate, 1) for rate in rates] for stage, rates in flow.series.items()}
    return json.dumps({"times": flow.times, **series}, separators=(",", ":"))


def history_said(flow: Throughput | None) -> str:
    """The chart in words, for those who do not see it."""
    if flow is None:
        return "The history is not known while Redis is away."
    parts = [
        f"{stage} {shown.count(sum(rates) * BUCKET_SECONDS)}, at most {shown.rate(max(rates, default=0))} a second"
        for stage, rates in flow.series.items()
    ]
    return f"Last {HISTORY_SECONDS // 60} minutes: {'; '.join(parts)}."


def facts(status: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What GET /status says beyond the numbers shown elsewhere: the index, and whatever there is."""
    return [(name, value) for name, value in status.items() if name not in PLACED and value is not None]


def revision(contents: Seen[Contents], index: Seen[dict[str, Any]]) -> str:
    """Changes when the lists of dead letters and failures do."""
    held = contents.value
    if held is None:
        return ""
    letters = held.letters["letters"]
    newest = "/".join(str(letters[0][name]) for name in ("topic", "partition", "offset")) if letters else ""
    failures = held.failures["failures"]
    failed = (index.value or {}).get("failed")
    return (
        f"{sum(row['count'] for row in held.letter_counts)} {newest} {failed} {failures[0]['id'] if failures else ''}"
    )
