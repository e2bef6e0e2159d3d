"""The builder inside a running worker: it finds its work by itself, and the queue goes on beside it."""

from collections.abc import Callable
from dataclasses import replace

import psycopg2
import pytest
from psycopg2.errors import QueryCanceled
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from db import index_plan, session, vector_index
from settings import Settings
from tasks import indexes, resources
from tasks.indexes import Watch
from tests.parts import Running, eventually
from tests.pipeline import Pipeline
from tests.samples import ask
from tests.vectors import MODEL, Stored, ranges


@pytest.fixture
def stored(database: Engine) -> Stored:
    return Stored(database)


def test_a_running_worker_builds_while_it_stores(
    settings: Settings, stored: Stored, start: Callable[..., Running]
) -> None:
    stored.add(300)
    # A transaction with a snapshot, for which CREATE INDEX CONCURRENTLY waits: the build takes as long as we like.
    old = psycopg2.connect(settings.database_url().replace("+psycopg2", ""))
    with old.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM text_messages LIMIT 1")
    start("bridge")
    start("persist-worker", index_seal_rows=200)
    start("beat")
    eventually(lambda: ask(stored.engine, "SELECT FROM vector_index_parts WHERE state = 'building'"), timeout=60)
    with Pipeline(settings, {}) as pipeline:
        message = pipeline.send("stored beside a build")
    query = "SELECT FROM text_messages WHERE id = CAST(:id AS uuid)"
    eventually(lambda: len(ask(stored.engine, query, id=message)) == 1, timeout=30)
    assert ranges(stored.engine) == []
    old.close()
    eventually(lambda: ranges(stored.engine) == [(1, 301)], timeout=60)
    assert ask(stored.engine, "SELECT DISTINCT model FROM vector_index_parts") == [{"model": MODEL}]


def test_the_rate_is_known_after_two_looks() -> None:
    watch = Watch()
    assert not watch.see(1_000, now=100.0)
    assert not watch.see(20_000, now=100.1), "one distance is not enough: a burst must not seem to be no flow at all"
    assert watch.see(1_100, now=101.0)
    assert (watch.rate, watch.quiet_since) == (100.0, 101.0)
    assert watch.see(9_999, now=101.1), "too soon after the last one to tell anything"
    assert watch.rate == 100.0


def test_the_look_in_which_a_burst_ends_is_not_taken_for_a_slow_flow() -> None:
    watch = Watch()
    for last_id, now in ((0, 0.0), (7_000, 1.0), (7_500, 2.0)):
        watch.see(last_id, now)
    assert watch.rate == 7_000.0
    watch.see(7_500, 3.0)
    assert watch.rate == 500.0
    watch.see(7_500, 4.0)
    assert (watch.rate, watch.quiet_since) == (0.0, 2.0)


def test_texts_are_taken_in_when_many_wait_and_it_is_no_burst() -> None:
    watch = Watch()

    def waits(last_id: int, now: float) -> bool:
        watch.see(last_id, now)
        return watch.texts_wait

    waits(10_000, 0.0)
    assert waits(10_000, 1.0), "nobody knows what waited before this process came"
    watch.taken_in = 10_000
    assert not waits(10_000, 2.0)
    assert not waits(11_999, 5.0)
    assert waits(12_000, 6.0)
    assert not waits(15_000, 7.0), "a burst has no core to spare"
    waits(15_000, 8.0)
    assert waits(15_000, 9.0)
    watch.taken_in = 15_000
    waits(2_100, 10.0)
    assert waits(2_100, 11.0), "the tables were made anew, and the ids began again"


@pytest.mark.parametrize("done", [True, False])
def test_what_another_builder_kept_from_being_taken_in_still_waits(monkeypatch: pytest.MonkeyPatch, done: bool) -> None:
    monkeypatch.setattr(indexes, "watch", watch := Watch())
    monkeypatch.setattr(vector_index, "take_in_texts", lambda _: done)
    watch.see(5_000, 0.0)
    watch.see(5_000, 1.0)
    indexes.take_in(Settings())
    assert watch.texts_wait is not done


@pytest.fixture
def looking(settings: Settings, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Watch:
    """A process that knows the rate, and has a vector index to build."""
    monkeypatch.setattr(indexes, "watch", watch := Watch())
    monkeypatch.setattr(resources, "side_engine", lambda: stored.engine)
    monkeypatch.setattr("settings.load", lambda: replace(settings, index_seal_rows=200))
    stored.add(300)
    indexes.look()
    return watch


def look_again(watch: Watch) -> None:
    watch.seen_at -= 1.0
    indexes.look()
    if watch.building is not None:
        watch.building.join(30)


@pytest.mark.parametrize("given_way", [False, True])
def test_a_build_that_failed_is_tried_again_after_a_pause_and_one_that_gave_way_at_once(
    looking: Watch, monkeypatch: pytest.MonkeyPatch, given_way: bool
) -> None:
    tries: list[float] = []

    def fail(_settings: Settings, rate: float, _quiet: float) -> None:
        tries.append(rate)
        raise OperationalError("", {}, QueryCanceled() if given_way else psycopg2.OperationalError("the disk is full"))

    monkeypatch.setattr(session, "was_canceled", lambda error: isinstance(error.orig, QueryCanceled))
    monkeypatch.setattr(vector_index, "tend", fail)
    for _ in range(2):
        look_again(looking)
    assert len(tries) == (2 if given_way else 1)
    looking.not_before -= indexes.PAUSE_SECONDS
    look_again(looking)
    assert len(tries) == (3 if given_way else 2)


def test_beside_a_build_the_look_is_whether_that_is_to_give_way(
    settings: Settings, looking: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(vector_index, "give_way", lambda _connection, _settings, rate: asked.append(rate))
    monkeypatch.setattr(vector_index, "tend", lambda *_: pytest.fail("another one builds"))
    with vector_index.builder(settings):
        look_again(looking)
    assert len(asked) == 1
    assert looking.building is None


@pytest.mark.parametrize("keyword_index", ["on", "off"])
def test_the_builder_takes_in_what_waits(
    settings: Settings, stored: Stored, keyword_index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_or_without = replace(settings, keyword_index=keyword_index, metadata_index="off")
    monkeypatch.setattr(indexes, "watch", watch := Watch())
    monkeypatch.setattr(resources, "side_engine", lambda: stored.engine)
    monkeypatch.setattr("settings.load", lambda: with_or_without)
    vector_index.tend(with_or_without, 0.0, 0.0)
    stored.add(index_plan.WAITING_ROWS)
    monkeypatch.setattr(vector_index, "put_in_order", lambda *_: pytest.fail("it counts the whole table"))
    indexes.look()
    watch.seen_at -= 1.0
    indexes.look()
    if keyword_index == "off":
        assert watch.building is None, "there is nothing to be taken in"
        return
    assert watch.building is not None
    watch.building.join(30)
    assert watch.taken_in == watch.last_id
    (waiting,) = ask(stored.engine, "SELECT gin_clean_pending_list('text_messages_words') AS pages")
    assert waiting["pages"] == 0
