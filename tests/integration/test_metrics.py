"""/metrics of the search API on the running pipeline; the dashboard and the alert rules speak of what is there."""

import json
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import redis
import requests
import yaml
from flask import Flask
from prometheus_client.parser import text_string_to_metric_families

from api.app import create_app
from redis_keys import HISTORY, PROCESSES, TOTALS, process_member
from settings import ROOT, Settings
from stack import pipeline_state
from stack.part import environment
from telemetry import numbers, numbers_store
from telemetry.numbers_store import BUCKET_SECONDS
from tests.parts import eventually
from tests.pipeline import Pipeline

DASHBOARDS = sorted((ROOT / "deploy" / "grafana").glob("*.json"))
RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
OPERATIONS = ROOT / "docs" / "operations.md"

# PromQL's own words; everything else that looks like a name and is no label is a metric.
WORDS = frozenset(
    {
        "sum",
        "by",
        "rate",
        "increase",
        "deriv",
        "histogram_quantile",
        "and",
        "or",
        "unless",
        "on",
        "without",
        "max",
        "min",
        "avg",
        "absent",
    }
)
OF_PROMETHEUS = frozenset({"up"})
# What each replica of an API says for itself: that it is asked, and whether the parts answer it.
OF_A_REPLICA = OF_PROMETHEUS | {
    "http_requests_total",
    "http_request_duration_seconds_bucket",
    "search_duration_seconds_bucket",
    "pipeline_part_up",
}
ONE_OF_ALL_REPLICAS = r"(?:max|min|avg)(?: by \(([^)]*)\) )?\((?:(?:rate|increase|deriv)\()?%s\b(?:\{([^}]*)\})?"


def samples(page: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def metrics(pipeline: Pipeline) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = pipeline.http.get(f"{pipeline.search_api}/metrics", timeout=10)
    assert answer.headers["Content-Type"].startswith("text/plain")
    return samples(answer.text)


def value(found: dict[Any, float], name: str, **labels: str) -> float:
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


def expressions(tree: Any) -> Iterator[str]:
    """All that stands under `expr`, wherever it is."""
    if isinstance(tree, dict):
        for name, inner in tree.items():
            if name == "expr":
                yield inner
            else:
                yield from expressions(inner)
    elif isinstance(tree, list):
        for inner in tree:
            yield from expressions(inner)


def all_expressions() -> Iterator[str]:
    for path in DASHBOARDS:
        yield from expressions(json.loads(path.read_text()))
    yield from expressions(yaml.safe_load(RULES.read_text()))


def names_in(expression: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', "", expression)
    bare = re.sub(r"\{[^}]*\}|\[[^]]*\]|\b(by|without)\s*\([^)]*\)", "", bare)
    return set(re.findall(r"[a-z_][a-z0-9_]*", bare)) - WORDS


def used() -> dict[str, set[str]]:
    trees: Iterable[tuple[str, Any]] = [
        *((path.name, json.loads(path.read_text())) for path in DASHBOARDS),
        (RULES.name, yaml.safe_load(RULES.read_text())),
    ]
    return {name: set().union(*map(names_in, expressions(tree))) for name, tree in trees}


def test_a_record_is_counted_on_its_whole_way(pipeline: Pipeline) -> None:
    topic, group = pipeline.settings.kafka_topic, pipeline.settings.kafka_group_id
    before = metrics(pipeline)
    pipeline.wait_until_ready(pipeline.send(f"counted {uuid.uuid4()}"))
    pipeline.produce(b"{")
    pipeline.search("counted")

    def counted() -> bool:
        after = metrics(pipeline)

        def grew(name: str, **labels: str) -> bool:
            return value(after, name, **labels) > value(before, name, **labels)

        for name, labels in (
            ("bridge_records_consumed_total", {}),
            ("persisted_records_total", {"outcome": "stored"}),
            ("dead_letters_total", {"reason": "invalid-json"}),
            ("embedded_messages_total", {}),
            ("embedding_freshness_seconds_count", {}),
            ("task_batch_size_count", {"task": "persist_text"}),
            ("task_batch_size_count", {"task": "embed_text"}),
            ("celery_task_runtime_seconds_count", {"task": "embed_text"}),
            ("celery_tasks_total", {"task": "persist_text", "state": "success"}),
            ("search_duration_seconds_count", {"mode": "semantic"}),
            ("dead_letters_open", {"reason": "invalid-json"}),
            ("embedding_searchable_messages", {}),
        ):
            assert grew(name, **labels), name
        return True

    eventually(counted, timeout=30)

    def steady() -> bool:
        found = metrics(pipeline)
        for part in ("bridge", "persist-worker", "embed-worker", "beat"):
            assert value(found, "pipeline_processes_up", part=part) == 1, part
        for part in ("database", "kafka", "broker"):
            assert value(found, "pipeline_part_up", part=part) == 1, part
        for queue in ("persist", "embed"):
            assert ("celery_queue_length", (("queue_name", queue),)) in found
        place = {"consumergroup": group, "topic": topic, "partition": "0"}
        assert value(found, "kafka_consumergroup_lag", **place) == 0
        assert ("kafka_consumergroup_current_offset", tuple(sorted(place.items()))) in found
        for name in ("embedding_pending_messages", "embedding_failed_messages", "embedding_oldest_pending_seconds"):
            assert (name, ()) in found
        buckets = [
            (float(dict(labels)["le"]), amount)
            for (name, labels), amount in found.items()
            if name == "embedding_freshness_seconds_bucket"
        ]
        ordered = [amount for _, amount in sorted(buckets)]
        assert ordered == sorted(ordered)
        assert ordered[-1] == value(found, "embedding_freshness_seconds_count")
        return True

    eventually(steady, timeout=30)


def test_the_dashboard_and_the_rules_speak_of_metrics_that_exist(pipeline: Pipeline) -> None:
    assert DASHBOARDS
    # So that those with labels have been counted at least once.
    pipeline.wait_until_ready(pipeline.send("for the dashboard"))
    pipeline.produce(b"{")
    pipeline.search("dashboard")

    def all_there() -> bool:
        there = {name for name, _ in metrics(pipeline)} | OF_PROMETHEUS
        for file, names in used().items():
            assert len(names) > 8, file
            assert names - there == set(), f"{file} speaks of metrics that do not exist"
        return True

    eventually(all_there, timeout=30)


def test_the_pipeline_is_counted_once_however_many_replicas_show_it(pipeline: Pipeline) -> None:
    """Each of its numbers is made one by its own labels, no fewer and no more, before anything else is done with it."""
    pipeline.wait_until_ready(pipeline.send("for one of many"))
    pipeline.produce(b"{")

    def all_once() -> bool:
        labels_of = {name: {label for label, _ in labels} for name, labels in metrics(pipeline)}
        for expression in all_expressions():
            for name in names_in(expression) - OF_A_REPLICA:
                uses = re.findall(rf"\b{name}\b", expression)
                once = re.findall(ONE_OF_ALL_REPLICAS % name, expression)
                assert len(once) == len(uses), f"{name} is counted for each replica: {expression}"
                for kept, chosen in once:
                    labels = re.findall(r"[a-z_]+", kept) + re.findall(r"([a-z_]+)=", chosen)
                    assert set(labels) == labels_of.get(name), expression
        return True

    eventually(all_once, timeout=30)


def test_every_alert_is_explained() -> None:
    rules = yaml.safe_load(RULES.read_text())["groups"][0]["rules"]
    explained = set(re.findall(r"^#+ (\w+)$", OPERATIONS.read_text(), re.MULTILINE))
    assert {rule["alert"] for rule in rules} <= explained
    for rule in rules:
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_the_names_are_found_in_expressions() -> None:
    """The test above sees what it should."""
    assert names_in('sum by (le, task) (rate(a_bucket{x="y"}[5m])) / 2 > 0.5 and up{job="j"} == 0') == {
        "a_bucket",
        "up",
    }


@pytest.fixture
def tally(monkeypatch: pytest.MonkeyPatch) -> numbers.Tally:
    fresh = numbers.Tally()
    monkeypatch.setattr(numbers, "TALLY", fresh)
    monkeypatch.setattr(numbers_store, "TALLY", fresh)
    return fresh


def test_processes_add_up_and_an_outage_loses_nothing(
    settings: Settings, broker: redis.Redis, tally: numbers.Tally
) -> None:
    client = numbers_store.connect(settings.redis_address)
    gone = numbers_store.connect("redis://127.0.0.1:1/0")
    tally.add(numbers.CONSUMED, 3)
    tally.add(numbers.DEAD_LETTERS, 2, "invalid-json")
    with pytest.raises(redis.RedisError):
        numbers_store.deliver(gone, "bridge\thost\t1")
    tally.add(numbers.CONSUMED, 4)
    tally.observe(numbers.FRESHNESS, [0.01, 0.011, 7200.0])
    numbers_store.deliver(client, "bridge\thost\t1")
    tally.add(numbers.CONSUMED, 1)
    numbers_store.deliver(client, "bridge\thost\t2")
    kept = numbers_store.read(client)
    assert kept.totals["bridge_records_consumed"] == 8
    assert kept.totals["dead_letters\tinvalid-json"] == 2
    assert kept.totals["embedding_freshness_seconds\t0"] == 1
    assert kept.totals["embedding_freshness_seconds\t1"] == 1
    assert kept.totals["embedding_freshness_seconds\t15"] == 1
    assert sum(span.get("bridge_records_consumed", 0) for _, span in kept.history) == 8
    assert numbers_store.count_by_part(kept.processes, ["bridge", "beat"]) == {"bridge": 2, "beat": 0}
    lasting = [broker.ttl(span) for span in broker.scan_iter(f"{HISTORY}:*")]
    assert lasting
    assert min(lasting) > 0, "or Redis would fill up"
    broker.flushdb()
    numbers_store.deliver(client, "bridge\thost\t1")
    assert numbers_store.read(client).totals == {}
    client.close()


def deliver_in_vain(client: redis.Redis, tally: numbers.Tally) -> None:
    """Three times, each with one more of two numbers."""
    for _ in range(3):
        tally.add(numbers.CONSUMED, 1)
        tally.add(numbers.EMBEDDED, 1)
        with pytest.raises(redis.ResponseError):
            numbers_store.deliver(client, "bridge\thost\t1")


def brought(client: redis.Redis) -> list[tuple[float, float]]:
    """Of the two numbers the total, and the sum of their history."""
    kept = numbers_store.read(client)
    names = ("bridge_records_consumed", "embedded_messages")
    return [(kept.totals[name], sum(span.get(name, 0) for _, span in kept.history)) for name in names]


@pytest.mark.parametrize("key", [TOTALS, PROCESSES])
def test_what_redis_refuses_comes_later_and_nothing_comes_twice(
    settings: Settings, broker: redis.Redis, tally: numbers.Tally, key: str
) -> None:
    client = numbers_store.connect(settings.redis_address)
    broker.set(key, "somebody else's")
    deliver_in_vain(client, tally)
    broker.delete(key)
    numbers_store.deliver(client, "bridge\thost\t1")
    assert brought(client) == [(3, 3), (3, 3)]
    client.close()


def test_nor_where_one_number_alone_is_refused(settings: Settings, broker: redis.Redis, tally: numbers.Tally) -> None:
    client = numbers_store.connect(settings.redis_address)
    broker.hset(TOTALS, "bridge_records_consumed", "many")
    deliver_in_vain(client, tally)
    broker.hdel(TOTALS, "bridge_records_consumed")
    numbers_store.deliver(client)
    assert brought(client) == [(3, 3), (3, 3)]
    client.close()


def test_nor_where_the_history_is(settings: Settings, broker: redis.Redis, tally: numbers.Tally) -> None:
    client = numbers_store.connect(settings.redis_address)
    begins = broker.time()[0] // BUCKET_SECONDS * BUCKET_SECONDS
    spans = [f"{HISTORY}:{begins + later}" for later in range(0, 60, BUCKET_SECONDS)]
    broker.mset(dict.fromkeys(spans, "somebody else's"))
    deliver_in_vain(client, tally)
    broker.delete(*spans)
    assert brought(client) == [(3, 0), (3, 0)]
    client.close()


def test_a_process_that_ends_takes_itself_off_the_list(
    settings: Settings, broker: redis.Redis, tally: numbers.Tally
) -> None:
    delivery = numbers_store.Delivery(settings.redis_address, "persist-worker", "embed-worker")
    client = numbers_store.connect(settings.redis_address)
    eventually(lambda: len(numbers_store.read(client).processes) == 2)
    tally.add(numbers.CONSUMED, 5)
    delivery.end()
    kept = numbers_store.read(client)
    assert kept.processes == []
    assert kept.totals["bridge_records_consumed"] == 5
    client.close()


def test_a_process_that_died_before_the_clock_of_redis_was_set_back_is_not_up(
    settings: Settings, broker: redis.Redis
) -> None:
    client, mine = numbers_store.connect(settings.redis_address), process_member("bridge", socket.gethostname(), 1)
    broker.zadd(PROCESSES, {mine: broker.time()[0] + 3600})
    assert numbers_store.read(client).processes == []
    assert not pipeline_state.heard_of(settings, "bridge", 1)
    numbers_store.deliver(client, mine)
    assert len(numbers_store.read(client).processes) == 1
    assert pipeline_state.heard_of(settings, "bridge", 1)
    client.close()


def test_a_process_that_is_silent_is_not_up_and_is_forgotten_later(settings: Settings, broker: redis.Redis) -> None:
    client, now = numbers_store.connect(settings.redis_address), broker.time()[0]
    silent, long_silent = (process_member("bridge", "host", pid) for pid in (1, 2))
    broker.zadd(PROCESSES, {silent: now - numbers_store.SILENT_SECONDS - 1})
    broker.zadd(PROCESSES, {long_silent: now - numbers_store.FORGET_SECONDS - 1})
    assert numbers_store.read(client).processes == []
    numbers_store.deliver(client, process_member("beat", "host", 3))
    assert broker.zscore(PROCESSES, silent) is not None
    assert broker.zscore(PROCESSES, long_silent) is None
    client.close()


def test_a_worker_of_both_queues_is_one_of_each(settings: Settings, broker: redis.Redis) -> None:
    command = [sys.executable, "-m", "tasks.celery", "-A", "tasks.app", "worker", "--pool", "solo"]
    client, nowhere = numbers_store.connect(settings.redis_address), subprocess.DEVNULL
    worker = subprocess.Popen(command, cwd=ROOT, env=environment(settings), stdout=nowhere, stderr=nowhere)
    try:
        processes = eventually(lambda: numbers_store.read(client).processes, timeout=30)
        assert {(each.part, each.pid) for each in processes} == {
            ("embed-worker", worker.pid),
            ("persist-worker", worker.pid),
        }
    finally:
        worker.terminate()
        worker.wait(timeout=20)
        client.close()


def test_without_any_part_a_scrape_ends_soon_and_says_which_are_away() -> None:
    away = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing")
    app = create_app("search", away)

    def told() -> bool:
        began = time.monotonic()
        found = samples(app.test_client().get("/metrics").text)
        assert time.monotonic() - began < 10
        return all(found[("pipeline_part_up", (("part", part),))] == 0 for part in ("database", "kafka", "broker"))

    eventually(told)
    assert ("embedding_pending_messages", ()) not in samples(app.test_client().get("/metrics").text)
    app.extensions["parts"].close()


@pytest.fixture
def two_processes(settings: Settings, broker: redis.Redis) -> Iterator[list[Flask]]:
    """The search API twice, as with API_WORKERS=2, where only the broker is there."""
    apps = [create_app("search", replace(settings, database_port=1, kafka_port=1)) for _ in range(2)]
    yield apps
    for app in apps:
        app.extensions["parts"].close()


def test_no_counter_goes_back_whichever_process_of_the_api_answers(
    settings: Settings, two_processes: list[Flask], tally: numbers.Tally
) -> None:
    client = numbers_store.connect(settings.redis_address)
    for count in range(1, 7):
        tally.add(numbers.CONSUMED, 1)
        tally.observe(numbers.FRESHNESS, [0.1])
        numbers_store.deliver(client)
        found = samples(two_processes[count % 2].test_client().get("/metrics").text)
        assert found[("bridge_records_consumed_total", ())] == count
        assert found[("embedding_freshness_seconds_count", ())] == count
    client.close()


def test_a_broker_that_answers_late_leaves_a_gap_and_no_old_counters(
    two_processes: list[Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_late(client: redis.Redis) -> numbers_store.Kept:
        free.wait()
        return read(client)

    def shown() -> tuple[float, ...]:
        found = samples(app.test_client().get("/metrics").text)
        up = found[("pipeline_part_up", (("part", "broker"),))]
        series = ("bridge_records_consumed_total", ()), ("embedding_freshness_seconds_count", ())
        return up, *(each in found for each in series), ("celery_queue_length", (("queue_name", "embed"),)) in found

    app, free, read = two_processes[0], threading.Event(), numbers_store.read
    monkeypatch.setattr(numbers_store, "read", read_late)
    free.set()
    assert shown() == (1, True, True, True)
    free.clear()
    assert shown() == (0, False, False, False)
    free.set()
    assert shown() == (1, True, True, True)


def test_the_text_api_has_its_own_numbers_only(pipeline: Pipeline) -> None:
    page = requests.get(f"{pipeline.text_api}/metrics", timeout=10).text
    assert "http_requests_total" in page
    assert "pipeline_part_up" not in page


def test_several_workers_of_the_api_show_the_pipeline_once(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    away = replace(settings, database_port=1, kafka_port=1, redis_url="redis://127.0.0.1:1/0")
    app = create_app("search", away)
    page = app.test_client().get("/metrics").text
    assert page.count("# TYPE pipeline_part_up ") == 1
    shutil.rmtree(tmp_path)  # by whoever sweeps old temporary files
    assert app.test_client().get("/metrics").status_code == 200
    app.extensions["parts"].close()
