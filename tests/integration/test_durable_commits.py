"""What is stored is on its way to be embedded before the disk has it, and is told as done only after that."""

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

from benchmarks.servers import free_ports
from db import commands, dead_letters, schema, session
from records import DeadLetter, Record
from settings import Settings
from tasks import persist as storing
from tasks import resources
from tests.integration.test_few_messages import at
from tests.integration.test_locked_rows import Again
from tests.parts import Running, eventually, service
from tests.samples import a_record, ask, persist, run

QUEUED = "SELECT unnest(message_ids)::text AS id FROM embedding_jobs"
STORED = "SELECT id::text FROM text_messages"


@pytest.fixture(scope="module")
def own(system: Settings) -> Settings:
    """Settings with a PostgreSQL that is only these tests', to be killed."""
    folder = Path(system.data_dir) / "durable-commits"
    folder.mkdir()
    return replace(system, database_port=free_ports(1)[0], data_dir=str(folder))


@pytest.fixture(scope="module")
def server(own: Settings) -> Iterator[Running]:
    """That server. What no commit waits for it writes only every ten seconds."""
    running = service(own, "postgres")
    schema.upgrade(own)
    yield running
    running.kill()


@pytest.fixture
def stored_there(own: Settings, server: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Its database, which is the worker's here. What would be sent to Redis is dropped."""
    engine = session.connect_engine(own.database_url(), "test", pool_size=2)
    with session.autocommit_connection(engine) as connection:
        connection.exec_driver_sql("ALTER SYSTEM SET wal_writer_delay = '10s'")
        connection.exec_driver_sql("SELECT pg_reload_conf()")
    monkeypatch.setattr(resources, "engine", lambda: engine)
    monkeypatch.setattr(storing, "embed_queue_has_room", lambda _: True)
    monkeypatch.setattr(storing, "chain_embedding", lambda *_: None)
    monkeypatch.setattr(storing, "retry", lambda _task, _outage, **kwargs: Again(kwargs))
    yield engine
    engine.dispose()


def restarted(server: Running, engine: Engine) -> None:
    """After a crash, in which all is lost that was not written yet."""
    server.kill()
    engine.dispose()
    server.start()
    server.wait_until_healthy()


class Killed(BaseException):
    """Instead of the end of the worker."""


def killed_before_the_disk(monkeypatch: pytest.MonkeyPatch, given: list[list[Any]]) -> None:
    """A worker commits, and comes no further."""

    def killed(_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(commands, "make_durable", killed)
        with pytest.raises(Killed):
            storing.persist_text(given)


def messages(count: int) -> list[Record]:
    return [a_record(f"text {number}", at(1, number)) for number in range(count)]


def times(engine: Engine, records: list[Record], statement: str) -> set[int]:
    """How often each of the messages is among the ids that a statement finds."""
    found = Counter(row["id"] for row in ask(engine, statement))
    return {found[record.id] for record in records}


@pytest.mark.parametrize("count", [1, 100], ids=["in one round trip", "by COPY"])
@pytest.mark.parametrize("tries", [1, 2], ids=["at once", "by a worker that was killed before it waited"])
def test_what_was_told_as_done_outlives_a_crash_of_the_server(
    server: Running, stored_there: Engine, monkeypatch: pytest.MonkeyPatch, count: int, tries: int
) -> None:
    records = messages(count)
    given = [list(record) for record in records]
    if tries == 2:  # then there is nothing left to write for the second, but nothing is on the disk for that
        killed_before_the_disk(monkeypatch, given)
    assert storing.persist_text(given) == {"stored": count if tries == 1 else 0, "rejected": []}
    restarted(server, stored_there)
    assert times(stored_there, records, STORED) == times(stored_there, records, QUEUED) == {1}


@pytest.mark.parametrize("count", [1, 100], ids=["in one round trip", "by COPY"])
def test_no_commit_waits_for_the_disk(
    server: Running, stored_there: Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    for _ in range(3):  # it may be just the moment at which the server writes by itself
        records = messages(count)
        killed_before_the_disk(monkeypatch, [list(record) for record in records])
        restarted(server, stored_there)
        if times(stored_there, records, STORED) == {0}:
            return
    pytest.fail("each time all was on the disk before anybody had waited for it")


@pytest.mark.parametrize("count", [1, 100], ids=["in one round trip", "by COPY"])
def test_what_a_crash_took_before_the_disk_had_it_is_stored_again(
    server: Running, stored_there: Engine, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    records = messages(count)
    given = [list(record) for record in records]

    def crash_first(connection: Any) -> None:
        server.kill()
        with contextlib.suppress(ProcessLookupError):  # a session that has not noticed it would still answer
            os.kill(session.driver_of(connection).info.backend_pid, signal.SIGKILL)
        wait(connection)

    wait = commands.make_durable
    with monkeypatch.context() as patch:
        patch.setattr(commands, "make_durable", crash_first)
        with pytest.raises(Again) as again:
            storing.persist_text(given)
    assert again.value.args[0] == {}
    restarted(server, stored_there)
    storing.persist_text(given, **again.value.args[0])
    assert times(stored_there, records, STORED) == times(stored_there, records, QUEUED) == {1}


def test_what_a_crash_took_is_not_told_as_done_though_the_server_is_back(
    server: Running, stored_there: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = messages(1)
    given = [list(record) for record in records]

    def crash(*_: object) -> None:
        server.kill()
        server.start()
        server.wait_until_healthy()
        time.sleep(resources.TRUSTED_SECONDS)  # the connection is asked for a sign of life, and made anew

    with monkeypatch.context() as patch:
        patch.setattr(storing, "chain_embedding", crash)
        with pytest.raises(Again) as again:
            storing.persist_text(given)
    assert again.value.args[0] == {}
    storing.persist_text(given)
    assert times(stored_there, records, STORED) == times(stored_there, records, QUEUED) == {1}


@pytest.fixture
def steps(database: Engine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the worker does with the test's database, in its order. The disk is there unless a test says otherwise."""
    seen: list[str] = []
    monkeypatch.setattr(resources, "engine", lambda: database)
    monkeypatch.setattr(storing, "embed_queue_has_room", lambda _: True)
    monkeypatch.setattr(storing, "chain_embedding", lambda *_: seen.append("sent to be embedded"))
    monkeypatch.setattr(commands, "make_durable", lambda _: seen.append("on the disk"))
    monkeypatch.setattr(storing, "retry", lambda _task, _outage, **kwargs: Again(kwargs))
    return seen


@pytest.mark.parametrize("count", [1, 100], ids=["in one round trip", "by COPY"])
def test_texts_are_sent_to_be_embedded_before_the_disk_is_waited_for(steps: list[str], count: int) -> None:
    storing.persist_text([list(record) for record in messages(count)])
    assert steps == ["sent to be embedded", "on the disk"]


def test_where_the_disk_is_not_reached_all_is_tried_again_as_it_was_given(
    steps: list[str], database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = messages(3)
    persist(database, records[0])

    def away(_: object) -> None:
        raise psycopg2.OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(commands, "make_durable", away)
        with pytest.raises(Again) as again:
            storing.persist_text([list(record) for record in records], waiting=[1, 2], rejected=[(0, "why")])
    assert again.value.args[0] == {"waiting": [1, 2], "rejected": [(0, "why")]}


@pytest.mark.parametrize("is_over", [False, True], ids=["goes on", "is over"])
def test_what_was_stored_before_an_outage_counts_once_it_is_on_the_disk_if_its_session(
    steps: list[str], database: Engine, monkeypatch: pytest.MonkeyPatch, is_over: bool
) -> None:
    records = messages(40)

    def away_for_the_second_half(some: Any, **options: Any) -> tuple[commands.Stored, object]:
        if len(some) == 40:
            raise psycopg2.DataError("one of them is refused")
        if some[0] == records[20]:
            if is_over:
                database.dispose()
            raise OperationalError("", {}, psycopg2.OperationalError("server closed the connection unexpectedly"))
        return stored(some, **options)

    stored = storing.store_guessing_new
    monkeypatch.setattr(storing, "store_guessing_new", away_for_the_second_half)
    with pytest.raises(Again) as again:
        storing.persist_text([list(record) for record in records])
    if is_over:
        assert again.value.args[0] == {}
        assert steps == ["sent to be embedded"]
    else:
        assert again.value.args[0]["waiting"] == list(range(20, 40))
        assert steps == ["sent to be embedded", "on the disk"]


@pytest.mark.parametrize(("chosen", "kept"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
def test_all_is_on_the_disk_also_where_somebody_has_turned_waiting_off(
    stored_there: Engine, chosen: str, kept: str
) -> None:
    with session.autocommit_connection(stored_there) as connection:
        connection.exec_driver_sql(f"SET synchronous_commit = {chosen}")
        connection.exec_driver_sql("SELECT setval('durable_commits', 2)")
        written = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn()").scalar_one()
        commands.make_durable(connection)
        flushed = connection.exec_driver_sql(f"SELECT pg_current_wal_flush_lsn() >= '{written}'").scalar_one()
        assert flushed
        assert connection.exec_driver_sql(commands.MAKE_DURABLE).one()[1] == kept
        connection.invalidate()


def test_a_noted_dead_letter_is_on_the_disk_also_where_somebody_has_turned_waiting_off(stored_there: Engine) -> None:
    letter = DeadLetter("t", 0, 1, 0, "invalid-json", "no JSON", None, None, None, [])
    with stored_there.connect() as connection:
        connection.exec_driver_sql("SET synchronous_commit = off")
        connection.commit()
        dead_letters.note(connection, [letter])
        written = connection.exec_driver_sql("SELECT pg_current_wal_insert_lsn()").scalar_one()
        connection.commit()
        assert connection.exec_driver_sql(f"SELECT pg_current_wal_flush_lsn() >= '{written}'").scalar_one()
        connection.invalidate()


def test_who_may_write_the_messages_may_wait_for_the_disk(own: Settings, stored_there: Engine) -> None:
    run(stored_there, "CREATE ROLE worker_of_his_own LOGIN PASSWORD 'his'")
    run(stored_there, "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO worker_of_his_own")
    run(stored_there, "REVOKE ALL ON SEQUENCE durable_commits FROM PUBLIC")  # as a restore without privileges does
    schema.upgrade(own)
    him = replace(own, database_user="worker_of_his_own", database_password="his")
    his = session.connect_engine(him.database_url(), "test")
    with session.autocommit_connection(his) as connection:
        commands.make_durable(connection)
    his.dispose()


def test_waits_for_a_standby_that_is_away_are_given_up_and_leave_no_session_behind(
    own: Settings, stored_there: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "LATE_ANSWER_MS", 100)
    engine = session.connect_engine(own.database_url(), "waits", timeout_ms=400)

    def set_standby(statement: str) -> None:
        with session.autocommit_connection(stored_there) as connection:
            connection.exec_driver_sql(statement)
            connection.exec_driver_sql("SELECT pg_reload_conf()")

    def given_up() -> bool:
        try:
            with session.autocommit_connection(engine) as connection:
                commands.make_durable(connection)
        except psycopg2.OperationalError as error:
            return session.is_outage(error)
        return False

    set_standby("ALTER SYSTEM SET synchronous_standby_names = 'away'")
    try:
        eventually(given_up)  # the server takes a moment to read its settings
        eventually(lambda: not ask(stored_there, "SELECT FROM pg_stat_activity WHERE application_name = 'waits'"))
    finally:
        set_standby("ALTER SYSTEM RESET synchronous_standby_names")
    eventually(lambda: not given_up())
    engine.dispose()
