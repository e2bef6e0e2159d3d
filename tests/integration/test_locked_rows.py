"""Rows that somebody's open transaction holds: their neighbours are stored, and the worker gets on."""

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from db import commands, session
from db.commands import Stored
from records import Record
from settings import Settings
from tasks import persist as storing
from tasks import resources
from tasks.outages import Outage
from telemetry.numbers import PERSISTED, TALLY, field
from tests.integration.test_embedding_faults import fickle  # noqa: F401 - a fixture
from tests.integration.test_few_messages import at
from tests.samples import a_record, ask, persist, run

pytestmark = pytest.mark.usefixtures("fickle")


@pytest.fixture
def engine_of_a_second(settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A statement of the worker may take a second."""
    engine = session.connect_engine(settings.database_url(), "persist", pool_size=2, timeout_ms=1_000)
    monkeypatch.setattr(resources, "engine", lambda: engine)
    yield
    engine.dispose()


def slow_inserts(database: Engine, seconds: float) -> None:
    run(
        database,
        f"""CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$;
            CREATE TRIGGER slow BEFORE INSERT ON text_messages FOR EACH ROW EXECUTE FUNCTION slow()""",
    )


def test_where_a_row_is_locked_its_neighbours_hardly_wait(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [a_record(f"text {number}", at(1, number)) for number in range(40)]
    persist(database, *records)
    waits: list[int] = []

    def noted(*given: Any, row_lock_ms: int, **options: Any) -> tuple[Stored, object]:
        waits.append(row_lock_ms)
        return stored(*given, row_lock_ms=row_lock_ms, **options)

    stored = storing.store_guessing_new
    monkeypatch.setattr(storing, "store_guessing_new", noted)
    monkeypatch.setattr(storing.expecting, "new", False)
    edited = {place: record._replace(message="edited", offset=100) for place, record in enumerate(records)}
    outcome = storing.Outcome()
    with database.connect() as somebody:
        somebody.execute(text("SELECT FROM text_messages WHERE id = :id FOR UPDATE"), {"id": records[7].id})
        storing.store_or_halve(edited, outcome, None, commands.ROW_LOCK_MS)
    assert outcome.locked == [7]
    assert len(outcome.texts) == 39
    assert waits[0] == commands.ROW_LOCK_MS
    assert set(waits[1:]) == {storing.ROW_LOCK_AGAIN_MS}


def test_however_many_rows_are_locked_their_neighbours_are_stored_at_once(
    database: Engine,
) -> None:
    records = [a_record(f"text {number}", at(1, number)) for number in range(200)]
    persist(database, *records)
    edited = {place: record._replace(message="edited", offset=1000 + place) for place, record in enumerate(records)}
    edited[7] = edited[7]._replace(message=None)
    outcome = storing.Outcome()
    with database.connect() as somebody:
        held = [records[place].id for place in range(0, 200, 2)]
        somebody.execute(
            text("UPDATE text_messages SET message = 'theirs' WHERE id = ANY (:ids ::uuid[])"), {"ids": held}
        )
        storing.store_or_halve(edited, outcome, None, commands.ROW_LOCK_MS)
    assert outcome.locked == list(range(0, 200, 2))
    assert outcome.lock_waits == 1
    assert outcome.texts.keys() == {records[place].id for place in range(1, 200, 2)} - {records[7].id}


def test_ids_that_somebody_is_inserting_are_waited_for_by_no_task_for_long(
    database: Engine,
) -> None:
    records = [a_record(f"text {number}", at(1, number)) for number in range(64)]
    outcome = storing.Outcome()
    with database.connect() as somebody:
        somebody.execute(
            text("INSERT INTO text_messages (id, message) SELECT unnest(:ids ::uuid[]), 'theirs'"),
            {"ids": [record.id for record in records]},
        )
        storing.store_or_halve(dict(enumerate(records)), outcome, None, 100)
    assert sorted(outcome.locked) == list(range(64))
    assert outcome.lock_waits <= 26, "20, and one for each half that was left"
    again = storing.Outcome()
    storing.store_or_halve({place: records[place] for place in outcome.locked}, again, None, 100)
    assert again.locked == []
    assert len(again.texts) == 64


def test_a_database_that_goes_away_while_it_is_asked_what_is_locked_is_an_outage(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Any other error would end the task, and with it the hand-over."""
    records = [a_record(f"text {number}", at(1, number)) for number in range(4)]
    persist(database, *records)
    edited = {place: record._replace(message="edited", offset=100) for place, record in enumerate(records)}

    def away(*_: object) -> set[str]:
        raise OperationalError("SELECT", {}, psycopg2.OperationalError("server closed the connection unexpectedly"))

    monkeypatch.setattr(commands, "locked_messages", away)
    with database.connect() as somebody:
        somebody.execute(text("SELECT FROM text_messages WHERE id = :id FOR UPDATE"), {"id": records[2].id})
        with pytest.raises(Outage, match="closed the connection"):
            storing.store_or_halve(edited, storing.Outcome(), None, 100)


class Again(Exception):
    """Instead of Celery's, with the keyword arguments of the next try."""


def test_records_are_counted_once_though_some_are_tried_again(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [a_record(f"text {number}", at(1, number)) for number in range(40)]
    persist(database, *records[:20])
    given = [list(record) for record in records]
    TALLY.take()
    with database.connect() as somebody:
        somebody.execute(text("SELECT FROM text_messages WHERE id = :id FOR UPDATE"), {"id": records[7].id})
        monkeypatch.setattr(storing, "retry", lambda _task, _outage, **kwargs: Again(kwargs))
        with pytest.raises(Again) as again:
            storing.persist_text(given)
    storing.persist_text(given, **again.value.args[0])
    counted = {name: int(count) for name, count in TALLY.take().items() if name.startswith("persisted_records")}
    assert sum(counted.values()) == 40
    assert counted[field(PERSISTED, ["stored"])] == 20
    assert counted[field(PERSISTED, ["unchanged"])] == 20


def test_after_an_outage_only_what_is_left_of_a_batch_is_tried_again(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records = [a_record(f"text {number}", at(1, number)) for number in range(40)]
    persist(database, *records[:5])
    given = [list(record) for record in records]
    given[9][2] = "a NUL: \0"
    TALLY.take()

    def away_for_the_second_half(some: Sequence[Record], **options: Any) -> tuple[Stored, object]:
        if some[0].offset == records[20].offset:
            raise OperationalError("", {}, psycopg2.OperationalError("server closed the connection unexpectedly"))
        return stored(some, **options)

    stored = storing.store_guessing_new
    with monkeypatch.context() as patch:
        patch.setattr(storing, "retry", lambda _task, _outage, **kwargs: Again(kwargs))
        patch.setattr(storing, "store_guessing_new", away_for_the_second_half)
        with pytest.raises(Again) as again:
            storing.persist_text(given)
    kwargs = again.value.args[0]
    assert kwargs["waiting"] == list(range(20, 40))
    assert [place for place, _ in kwargs["rejected"]] == [9]
    assert storing.persist_text(given, **kwargs) == {"stored": 20, "rejected": kwargs["rejected"]}
    found = {row["id"] for row in ask(database, "SELECT id::text FROM text_messages")}
    assert found == {record.id for record in records} - {records[9].id}
    counted = {name: int(count) for name, count in TALLY.take().items() if name.startswith("persisted_records")}
    outcomes = {"stored": 34, "unchanged": 5, "rejected": 1}
    assert counted == {field(PERSISTED, [outcome]): count for outcome, count in outcomes.items()}


def test_of_many_that_the_database_refuses_a_task_finds_some_and_the_next_the_others(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(storing, "REFUSALS", 4)
    monkeypatch.setattr(storing, "retry", lambda _task, _outage, **kwargs: Again(kwargs))
    run(database, "ALTER TABLE text_messages ADD CONSTRAINT mine CHECK (message NOT LIKE '%bad')")
    records = [a_record(f"{number} {'bad' if number % 2 else 'good'}", at(1, number)) for number in range(20)]
    given = [list(record) for record in records]
    TALLY.take()
    kwargs: dict[str, Any] = {}
    for rejected in (4, 8):
        with pytest.raises(Again) as again:
            storing.persist_text(given, **kwargs)
        kwargs = again.value.args[0]
        assert len(kwargs["rejected"]) == rejected
        assert len(ask(database, "SELECT FROM text_messages")) >= rejected - 1, "the good ones beside them are stored"
    found = storing.persist_text(given, **kwargs)
    assert sorted(place for place, _ in found["rejected"]) == list(range(1, 20, 2))
    assert len(ask(database, "SELECT FROM text_messages WHERE message LIKE '%good'")) == 10
    counted = {name: int(count) for name, count in TALLY.take().items() if name.startswith("persisted_records")}
    assert counted == {field(PERSISTED, [outcome]): 10 for outcome in ("stored", "rejected")}


def test_a_batch_that_takes_too_long_is_stored_half_by_half(database: Engine, engine_of_a_second: None) -> None:
    slow_inserts(database, 0.05)
    records = [a_record(f"text {number}", at(1, number)) for number in range(32)]
    outcome = storing.Outcome()
    storing.store_or_halve(dict(enumerate(records)), outcome, None, commands.ROW_LOCK_MS)
    assert len(outcome.texts) == 32


def test_a_database_in_which_nothing_is_in_time_is_an_outage(database: Engine, engine_of_a_second: None) -> None:
    slow_inserts(database, 2.0)
    records = [a_record(f"text {number}", at(1, number)) for number in range(4)]
    outcome = storing.Outcome()
    with pytest.raises(Outage, match="statement timeout"):
        storing.store_or_halve(dict(enumerate(records)), outcome, None, commands.ROW_LOCK_MS)
    assert (outcome.done, outcome.rejected) == (set(), [])
