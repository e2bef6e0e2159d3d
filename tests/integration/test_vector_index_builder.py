"""The builder of the vector index: one at a time, killed, broken off, and in the way of a migration."""

import threading
from contextlib import nullcontext
from dataclasses import replace

import psycopg2
import pytest
from psycopg2 import errorcodes
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from db import index_catalogue, schema, session, vector_index
from db.index_catalogue import Model
from db.index_plan import QUIET_SECONDS, Range
from settings import Settings
from tests.parts import eventually
from tests.samples import ask, meanwhile, run
from tests.vectors import MODEL, Stored, indexes, ranges, rest, seal, status


@pytest.fixture
def chosen(settings: Settings) -> Settings:
    return replace(settings, index_seal_rows=200)


@pytest.fixture
def stored(database: Engine) -> Stored:
    return Stored(database)


def test_two_builders_do_not_work_at_once(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    with vector_index.builder(chosen) as first:
        assert first is not None
        with stored.engine.connect() as connection:
            assert index_catalogue.is_building(connection)
        with vector_index.builder(chosen) as second:
            assert second is None
        assert seal(chosen) is None
        assert not vector_index.take_in_texts(chosen)
    with stored.engine.connect() as connection:
        eventually(lambda: not index_catalogue.is_building(connection))
    assert seal(chosen) is not None


def test_no_time_limit_ends_a_build(settings: Settings, database: Engine) -> None:
    with vector_index.builder(settings) as connection:
        assert connection is not None
        for limit in ("statement_timeout", "transaction_timeout", "lock_timeout"):
            assert connection.exec_driver_sql(f"SHOW {limit}").scalar_one() == "0"


@pytest.mark.parametrize("code", [errorcodes.DISK_FULL, errorcodes.OUT_OF_MEMORY, errorcodes.INTERNAL_ERROR])
def test_where_a_parallel_build_has_too_little_shared_memory_one_process_builds(
    stored: Stored, chosen: Settings, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    create, memory = vector_index.create_index, []

    def full(connection: Connection, part: int, model: Model, wanted: Range, workers: int) -> None:
        memory.append(connection.exec_driver_sql("SHOW maintenance_work_mem").scalar_one())
        create(connection, part, model, wanted, workers)
        if workers:
            connection.exec_driver_sql(f"DO $$ BEGIN RAISE SQLSTATE '{code}'; END $$")

    monkeypatch.setattr(vector_index, "create_index", full)
    stored.add(300)
    with pytest.raises(DBAPIError) if code == errorcodes.INTERNAL_ERROR else nullcontext():
        assert vector_index.tend(replace(chosen, index_workers=1, index_memory_mb=7), 0.0, QUIET_SECONDS) is not None
        assert ranges(stored.engine) == [(1, 301)]
    assert set(memory) == {"7MB"}


@pytest.mark.parametrize("table", ["text_messages", "message_embeddings"])
def test_an_index_that_somebody_makes_anew_beside_the_writers_is_left_alone(
    stored: Stored, chosen: Settings, table: str
) -> None:
    stored.add(300)
    rest(chosen, stored.engine)
    (index,) = indexes(stored.engine) if table == "message_embeddings" else ["text_messages_words"]

    def reindex() -> None:
        with stored.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql(f"REINDEX INDEX CONCURRENTLY {index}")

    def half_made() -> list[dict[str, object]]:
        return ask(stored.engine, "SELECT FROM pg_class WHERE relname = :name", name=f"{index}_ccnew")

    with stored.engine.connect() as writer:
        writer.exec_driver_sql(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE")
        with meanwhile(reindex):
            eventually(half_made)
            assert seal(chosen) is None
            assert half_made()
            writer.rollback()
    assert not half_made()
    assert ranges(stored.engine) == [(1, 301)]


@pytest.mark.parametrize("table", ["text_messages", "message_embeddings"])
def test_somebodys_open_analyze_holds_no_build(stored: Stored, chosen: Settings, table: str) -> None:
    """It has the lock that a REINDEX CONCURRENTLY has, but no index of it is half made."""
    stored.add(300)
    rest(chosen, stored.engine)
    with stored.engine.connect() as other:
        other.exec_driver_sql(f"ANALYZE {table}")
        with stored.engine.connect() as connection:
            assert not index_catalogue.others_build(connection)
        other.rollback()


def held_build(stored: Stored, chosen: Settings) -> tuple[threading.Thread, list[BaseException]]:
    """A build that PostgreSQL cannot finish, because somebody's transaction is older; returned once it waits."""
    errors: list[BaseException] = []

    def build() -> None:
        try:
            seal(chosen)
        except DBAPIError as error:
            errors.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    eventually(
        lambda: ask(
            stored.engine,
            "SELECT FROM pg_stat_progress_create_index WHERE datname = current_database() AND phase LIKE 'waiting%'",
        )
    )
    return thread, errors


@pytest.fixture
def old_snapshot(settings: Settings, stored: Stored) -> psycopg2.extensions.connection:
    """A transaction with a snapshot, for which CREATE INDEX CONCURRENTLY waits."""
    stored.add(300)
    connection = psycopg2.connect(settings.database_url().replace("+psycopg2", ""))
    with connection.cursor() as cursor:
        cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM text_messages LIMIT 1")
    return connection


def test_a_build_that_died_is_found_and_done_again(
    stored: Stored, chosen: Settings, old_snapshot: psycopg2.extensions.connection
) -> None:
    thread, errors = held_build(stored, chosen)
    found = status(chosen, stored.engine)
    building = found["building"]
    assert isinstance(building, dict)
    assert building["rows"] == 300
    assert "waiting" in building["phase"]
    stored.add(20)
    assert stored.recall() == 1.0, "neither reads nor writes wait for it"
    run(
        stored.engine,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE application_name = 'index builder' AND datname = current_database()",
    )
    thread.join(20)
    assert errors
    (left,) = indexes(stored.engine)
    assert ask(stored.engine, "SELECT state FROM vector_index_parts") == [{"state": "building"}]
    assert stored.recall() == 1.0
    with stored.engine.connect() as connection:
        assert index_catalogue.disorder(connection)
    old_snapshot.close()
    assert seal(chosen) is not None
    assert left not in indexes(stored.engine)
    assert ranges(stored.engine) == [(1, 321)]
    assert stored.recall() >= 0.97


def test_a_build_whose_builder_died_at_its_end_is_taken_over(stored: Stored, chosen: Settings) -> None:
    stored.add(300)
    part = seal(chosen)
    run(stored.engine, "UPDATE vector_index_parts SET state = 'building', built_rows = 0")
    assert ranges(stored.engine) == []
    assert seal(chosen) is None, "nothing is left to build"
    assert ask(stored.engine, "SELECT id, state, built_rows FROM vector_index_parts") == [
        {"id": part, "state": "ready", "built_rows": 300}
    ]


def test_a_merge_is_broken_off_when_too_much_comes_in(
    stored: Stored, chosen: Settings, old_snapshot: psycopg2.extensions.connection
) -> None:
    with stored.engine.connect() as connection:
        assert not vector_index.give_way(connection, chosen, 5_000.0), "there is nothing to break off"
    thread, errors = held_build(stored, chosen)
    with stored.engine.connect() as connection:
        assert not vector_index.give_way(connection, chosen, 5_000.0), "the open part has to be sealed"
    # The same range, as if a part had been there: then it is a merge, of so many rows that it takes long.
    (part,) = ask(
        stored.engine,
        """
        INSERT INTO vector_index_parts (model, from_id, to_id, state, live_rows) VALUES (:model, 1, 200, 'ready', 199)
        RETURNING id
        """,
        model=MODEL,
    )
    run(stored.engine, f"CREATE INDEX {index_catalogue.NAME}{part['id']} ON vector_index_parts (id)")
    run(stored.engine, "UPDATE vector_index_parts SET live_rows = 1000000 WHERE state = 'building'")
    with stored.engine.begin() as connection:
        assert vector_index.give_way(connection, chosen, 5_000.0)
    thread.join(20)
    assert session.was_canceled(errors[0])
    old_snapshot.close()
    rest(chosen, stored.engine)
    assert ranges(stored.engine) == [(1, 301)]


def test_a_quote_in_the_name_of_a_model_is_part_of_it(database: Engine, chosen: Settings) -> None:
    model = index_catalogue.Model("it's 100 % :new", 4, True)
    with vector_index.builder(chosen) as connection:
        assert connection is not None
        vector_index.build(connection, model, Range(1, 100, 1), chosen, quiet=False)
    (found,) = ask(
        database,
        "SELECT pg_get_expr(i.indpred, i.indrelid) AS said FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid"
        " WHERE c.relname LIKE 'message_embeddings_part_%'",
    )
    assert "it''s 100 % :new" in found["said"]


def test_a_downgrade_takes_the_indexes_away_even_while_one_is_built(
    stored: Stored, chosen: Settings, old_snapshot: psycopg2.extensions.connection
) -> None:
    thread, _ = held_build(stored, chosen)
    stored.engine.dispose()
    old_snapshot.rollback()
    old_snapshot.close()
    schema.downgrade(chosen, "0002")
    thread.join(20)
    assert not thread.is_alive()
    assert indexes(stored.engine) == []
    assert schema.upgrade(chosen) == schema.latest()
    assert seal(chosen) is not None
    assert stored.recall() >= 0.97


def test_a_migration_waits_for_another_without_standing_in_its_way(settings: Settings, database: Engine) -> None:
    """CREATE INDEX CONCURRENTLY waits for every older snapshot, so nobody may wait for it with one."""
    schema.downgrade(settings, "0002")
    with meanwhile(lambda: schema.upgrade(settings)):
        assert schema.upgrade(settings) == schema.latest()
