"""The numbers of the whole pipeline for Prometheus: what its processes have counted, and what its parts say now.

The search API shows them, besides those of its own requests (api.metrics). A part that is away leaves its numbers out
and has `pipeline_part_up` 0. What was counted is read for each scrape: a counter lower than one that another process of
the API has shown looks to Prometheus as if it began anew, while a gap does no harm.
"""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate, product
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from api.observed import Broker, Contents, Observed, Seen, database
from records import REASONS
from telemetry.numbers import ALL, SEPARATOR, SUM, Number
from telemetry.numbers_store import count_by_part

log = logging.getLogger(__name__)

PARTS = ("bridge", "persist-worker", "embed-worker", "beat")


class PipelineNumbers(Collector):
    """Looks at what was observed lately, and at what the broker says now; a scrape waits two seconds at most."""

    def __init__(self, observed: Observed) -> None:
        self.observed = observed

    def collect(self) -> Iterator[Metric]:
        observed = self.observed
        began = time.monotonic()
        broker = observed.broker.look_since(began)
        contents, index, positions, _ = observed.look()
        yield parts_up({"database": database(contents, index, broker), "kafka": positions, "broker": broker})
        if current(positions) is not None:
            yield from of_kafka(observed, positions.value or {})
        if broker.began >= began and (found := current(broker)) is not None:
            yield from of_broker(found)
        if (letters := current(contents)) is not None:
            yield open_letters(letters)
        if (status := current(index)) is not None:
            yield from of_index(status)


def current(seen: Seen[Any]) -> Any:
    """The answer, unless the part is away: an old number would look like one of now."""
    return None if seen.problem is not None else seen.value


def parts_up(parts: Mapping[str, Seen[Any]]) -> Metric:
    family = GaugeMetricFamily("pipeline_part_up", "Whether a part that all stands on answers", labels=["part"])
    for name, seen in parts.items():
        family.add_metric([name], float(current(seen) is not None))
    return family


def of_kafka(observed: Observed, positions: Mapping[int, Any]) -> Iterator[Metric]:
    group, topic = observed.settings.kafka_group_id, observed.settings.kafka_topic
    names = ["consumergroup", "topic", "partition"]
    lag = GaugeMetricFamily("kafka_consumergroup_lag", "Records that the group has yet to commit", labels=names)
    committed = GaugeMetricFamily("kafka_consumergroup_current_offset", "Offset that the group committed", labels=names)
    end = GaugeMetricFamily("kafka_topic_partition_current_offset", "End of the committed records", labels=names[1:])
    for partition, position in positions.items():
        lag.add_metric([group, topic, str(partition)], position.lag)
        committed.add_metric([group, topic, str(partition)], position.committed)
        end.add_metric([topic, str(partition)], position.end)
    yield from (lag, committed, end)


def of_broker(broker: Broker) -> Iterator[Metric]:
    length = GaugeMetricFamily("celery_queue_length", "Tasks waiting in a queue", labels=["queue_name"])
    for name, waiting in broker.queues.items():
        length.add_metric([name], waiting)
    yield length
    up = GaugeMetricFamily("pipeline_processes_up", "Processes of a part that were heard of lately", labels=["part"])
    for part, count in count_by_part(broker.kept.processes, PARTS).items():
        up.add_metric([part], count)
    yield up
    for number in ALL:
        yield histogram(number, broker.kept.totals) if number.buckets else counter(number, broker.kept.totals)


def open_letters(contents: Contents) -> Metric:
    family = GaugeMetricFamily("dead_letters_open", "Dead letters neither replayed nor dropped", labels=["reason"])
    # 0 where there are none, as the counters have it, so that a graph shows that and no gap.
    shown = dict.fromkeys(sorted(REASONS), 0) | {row["reason"]: row["count"] for row in contents.letter_counts}
    for reason, count in shown.items():
        family.add_metric([reason], count)
    return family


def of_index(status: Mapping[str, Any]) -> Iterator[Metric]:
    # Without a value, and so left out, where counting takes too long.
    yield GaugeMetricFamily("embedding_searchable_messages", "Messages that have their vector", status["embedded"])
    waiting = "Messages that wait for their vector, one once more for each edit that waits"
    yield GaugeMetricFamily("embedding_pending_messages", waiting, status["pending"])
    yield GaugeMetricFamily("embedding_failed_messages", "Messages whose embedding failed", status["failed"])
    yield GaugeMetricFamily(
        "embedding_oldest_pending_seconds",
        "For how long the oldest pending message has waited",
        status["oldest_pending_seconds"] or 0.0,
    )
    family = GaugeMetricFamily(
        "search_index", "What GET /status says of the index, by field; of a list its length", labels=["field"]
    )
    for field, value in numbers_in(status.get("index") or {}):
        family.add_metric([field], value)
    yield family


def numbers_in(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a dict: those of an inner dict as outer.inner, and for a list its length."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from numbers_in(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield prefix + name, float(len(value))
        elif isinstance(value, int | float):
            yield prefix + name, float(value)


def labelled(number: Number, totals: Mapping[str, float]) -> Iterator[tuple[list[str], str, float]]:
    """(label values, bucket or "", value) of each field of a number."""
    for field, value in totals.items():
        name, *rest = field.split(SEPARATOR)
        expected = len(number.labels) + bool(number.buckets)
        if name == number.name and len(rest) == expected:
            yield rest[: len(number.labels)], rest[-1] if number.buckets else "", value


def counter(number: Number, totals: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(number.name, number.help, labels=number.labels)
    shown = dict.fromkeys(product(*number.values), 0.0)
    shown.update({tuple(labels): value for labels, _, value in labelled(number, totals)})
    for labels, value in shown.items():
        family.add_metric(list(labels), value)
    return family


def histogram(number: Number, totals: Mapping[str, float]) -> Metric:
    family = HistogramMetricFamily(number.name, number.help, labels=number.labels)
    by_labels: dict[tuple[str, ...], dict[str, float]] = {} if number.labels else {(): {}}
    for labels, bucket, value in labelled(number, totals):
        by_labels.setdefault(tuple(labels), {})[bucket] = value
    for values, buckets in by_labels.items():
        family.add_metric(list(values), list(cumulative(number.buckets, buckets)), buckets.get(SUM, 0.0))
    return family


def cumulative(bounds: Iterable[float], counted: Mapping[str, float]) -> Iterator[tuple[str, float]]:
    limits = [*map(floatToGoString, bounds), "+Inf"]
    counts = (counted.get(str(place), 0.0) for place in range(len(limits)))
    return zip(limits, accumulate(counts), strict=True)
