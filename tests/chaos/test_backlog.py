"""A long backlog: memory stays flat, Redis small, and the end goes as fast as the beginning."""

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests.chaos import log_reader, report
from tests.chaos.system import System, bridge_names, running_system
from tests.chaos.watch import Memory

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

REDIS_MB = 64.0
# What may still be filled in the last third of a short backlog: PostgreSQL's shared_buffers, Kafka's heap.
CACHES_MB = {"postgres": 256.0, "kafka": 256.0}
HEAP_MB = 20.0
MODEL_TEXTS = 20_000
STALL_SECONDS = 120.0


def produce(system: System, count: int) -> None:
    """A backlog of small texts, each with an id of its own."""
    with contextlib.closing(system.producer()) as producer:
        for number in range(count):
            text = f"message number {number} about the weather in town {number % 97} and the ships in its harbour"
            producer.send(system.settings.kafka_topic, f'{{"id": "backlog-{number}", "text": "{text}"}}'.encode())
        producer.flush(timeout=600)


@contextlib.contextmanager
def backlog(system: System, count: int) -> Iterator[None]:
    """The bridges stand aside while the records are written, and come back all at once."""
    bridges = [system.parts[name] for name in bridge_names(system.settings.bridges)]
    for bridge in bridges:
        bridge.end(10)
    produce(system, count)
    assert log_reader.lag(system.settings) == count
    for bridge in bridges:
        bridge.come_back()
    yield


def embedded(system: System) -> int:
    """Vectors written so far: a look at a sequence, since counting a million rows would disturb what is measured."""
    return int(system.ask("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM message_embeddings_id_seq")[0][0])


def drain(system: System, count: int) -> list[tuple[float, int]]:
    """Waits until all is embedded: (seconds since the start, vectors) twice a second."""
    began = last = time.monotonic()
    samples = [(0.0, 0)]
    while samples[-1][1] < count:
        time.sleep(0.5)
        now, done = time.monotonic(), embedded(system)
        if done > samples[-1][1]:
            last = now
        assert now - last < STALL_SECONDS, f"nothing was embedded for {STALL_SECONDS:g} s, at {done} of {count}"
        samples.append((now - began, done))
    return samples


def rate(samples: list[tuple[float, int]], first: int, last: int) -> float:
    """Vectors a second between the first sample with at least `first` and the first with at least `last`."""
    begin = next(sample for sample in samples if sample[1] >= max(first, 1))
    end = next(sample for sample in samples if sample[1] >= last)
    return (end[1] - begin[1]) / (end[0] - begin[0])


def test_a_long_backlog(pytestconfig: pytest.Config) -> None:
    count = pytestconfig.getoption("--backlog")
    tenth = max(1, min(100_000, count // 4))
    with running_system("backlog", keep_logs=True) as system, backlog(system, count), Memory(system) as memory:
        samples = drain(system, count)
        begin, end = rate(samples, 0, tenth), rate(samples, count - tenth, count)
        title = f"Backlog of {count:,} records, hashing provider"
        report.add(
            f"{title}: {count / samples[-1][0]:,.0f} messages/s",
            ("part", "at first (MB)", "middle (MB)", "at the end (MB)", "most (MB)"),
            *([name, *points(used)] for name, used in {**memory.parts, "Redis, used_memory": memory.redis}.items()),
        )
        report.add(
            f"{title}: messages a second",
            (f"first {tenth:,}", f"last {tenth:,}"),
            [f"{begin:,.0f}", f"{end:,.0f}"],
        )
        assert system.ask("SELECT count(*), count(DISTINCT id) FROM text_messages") == [(count, count)]
        assert system.ask("SELECT count(*) FROM dead_letters") == [(0,)]
    assert max(memory.redis) < REDIS_MB
    growing = [name for name, used in memory.parts.items() if not flat(used, CACHES_MB.get(name, HEAP_MB))]
    assert not growing, f"uses more and more memory: {growing}"


def points(used: list[float]) -> list[float]:
    return [used[0], used[len(used) // 2], used[-1], max(used)]


def flat(used: list[float], room: float) -> bool:
    """The last third needs no more than what came before, give or take what a cache or a heap may still fill."""
    border = len(used) * 2 // 3
    return border < 5 or max(used[border:]) <= max(used[:border]) * 1.15 + room


@pytest.mark.model
def test_a_backlog_for_the_real_model_waits_in_postgresql() -> None:
    with (
        running_system("model", keep_logs=True, embedding_provider="minilm") as system,
        contextlib.closing(system.redis()) as client,
        backlog(system, MODEL_TEXTS),
    ):
        began = time.monotonic()
        longest = waiting = 0
        stored_after = 0.0
        while (done := embedded(system)) < MODEL_TEXTS:
            assert time.monotonic() - began < 1800, f"{done} of {MODEL_TEXTS} embedded after half an hour"
            names = [name for name in client.scan_iter("embed*", count=1000) if client.type(name) == b"list"]
            longest = max(longest, sum(client.llen(name) for name in names))
            ((jobs,),) = system.ask("SELECT coalesce(sum(cardinality(message_ids)), 0)::int FROM embedding_jobs")
            waiting = max(waiting, jobs)
            if not stored_after and not log_reader.lag(system.settings):
                stored_after = time.monotonic() - began
            time.sleep(0.2)
        took = time.monotonic() - began
        report.add(
            f"Backlog of {MODEL_TEXTS:,} records, real model",
            ("all stored (s)", "all embedded (s)", "embed queue, most tasks", "messages waiting in PostgreSQL, most"),
            [stored_after, took, longest, waiting],
        )
        assert longest <= system.settings.embed_queue_max
        assert waiting > 0
