"""What somebody has set for the database or its roles changes neither what is stored nor which version wins."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import psycopg2
import pytest
import redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from api.console import state
from api.observed import Observed
from api.pipeline_numbers import PipelineNumbers
from db import commands, embeddings, queries, reuse, session, text_index
from redis_keys import REFUSED, REFUSED_SECONDS
from settings import Settings
from stack import pipeline_state
from tests.integration.test_few_messages import at, few
from tests.parts import Running, eventually, send_task
from tests.samples import MODEL, a_record, ask, meanwhile, persist, run, vectors_of, wait_until_blocked

Set = Callable[[str, str], Engine]


@pytest.fixture
def with_setting(settings: Settings, database: Engine) -> Iterator[Set]:
    """An engine of the test's database after somebody has chosen a setting for it."""
    engines: list[Engine] = []

    def choose(name: str, value: str) -> Engine:
        run(database, f"ALTER DATABASE {settings.database_name} SET {name} = '{value}'")
        engines.append(session.connect_engine(settings.database_url(), "test", pool_size=2))
        return engines[-1]

    yield choose
    for engine in engines:
        engine.dispose()


@pytest.mark.parametrize("count", [1, 20], ids=["by INSERT", "by COPY"])
def test_texts_are_stored_as_they_are_under_any_client_encoding(
    with_setting: Set, database: Engine, count: int
) -> None:
    engine = with_setting("client_encoding", "LATIN1")
    records = [a_record(f"Grüße {number}, 日本語 \U0001f600") for number in range(count)]
    persist(engine, *records, expect_new=True)
    wanted = {record.message for record in records}
    assert {found["message"] for found in ask(engine, "SELECT message FROM text_messages")} == wanted
    assert {found["message"] for found in ask(database, "SELECT message FROM text_messages")} == wanted


@pytest.mark.parametrize("count", [1, 20], ids=["few", "many"])
@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_text_that_has_waited_for_its_tombstone_stays_away_under_any_isolation(
    with_setting: Set, database: Engine, level: str, count: int
) -> None:
    engine = with_setting("default_transaction_isolation", level)
    records = [a_record(f"text {number}", at(1, number)) for number in range(count)]
    with engine.connect() as connection:
        commands.persist(connection, [a_record(None, at(2), id=record.id) for record in records])
        with meanwhile(lambda: few(engine, *records) or persist(engine, *records)):
            wait_until_blocked(database)
            connection.commit()
    assert ask(database, "SELECT message FROM text_messages") == []


@pytest.mark.parametrize(
    ("name", "value"), [("standard_conforming_strings", "off"), ("array_nulls", "off"), ("quote_all_identifiers", "on")]
)
def test_statements_and_indexes_are_read_in_the_same_way(
    with_setting: Set, database: Engine, name: str, value: str
) -> None:
    engine = with_setting(name, value)
    persist(engine, a_record("text"))
    assert ask(database, "SELECT message, source_id, metadata FROM text_messages") == [
        {"message": "text", "source_id": None, "metadata": None}
    ]
    with engine.connect() as ours, database.connect() as plain:
        assert text_index.present(ours) == text_index.present(plain) != {}


@pytest.mark.parametrize("digits", [-15, 0])
def test_numbers_are_read_to_their_last_digit(with_setting: Set, database: Engine, digits: int) -> None:
    texts = {str(uuid.uuid4()): "text"}
    vectors = replace(vectors_of(texts), embeddings=np.array([[0.12345678, -0.5, 1e-05, 0.98765]], dtype=np.float16))
    with database.begin() as connection:
        embeddings.copy(connection, MODEL, vectors)
    engine = with_setting("extra_float_digits", str(digits))
    with engine.connect() as connection:
        (found,) = reuse.vectors_of(connection, MODEL, vectors.content_hashes).values()
        third = connection.execute(text("SELECT 1.0::double precision / 3")).scalar_one()
    assert found[0].vector.tolist() == vectors.embeddings[0].tolist()
    assert third == 1 / 3


def test_every_text_with_a_word_is_found(with_setting: Set, settings: Settings, database: Engine) -> None:
    persist(database, *[a_record(f"word {number}") for number in range(200)])
    with database.begin() as connection:
        text_index.take_in(connection)
    with with_setting("gin_fuzzy_search_limit", "1").connect() as connection:
        assert len(queries.keyword(connection, settings, "word", limit=200)) == 200


def test_the_server_notices_in_time_that_a_client_has_vanished(with_setting: Set, database: Engine) -> None:
    shown = "SELECT name, setting FROM pg_settings WHERE name LIKE 'tcp\\_%' ORDER BY name"
    assert [(row["name"], row["setting"]) for row in ask(with_setting("tcp_keepalives_idle", "7200"), shown)] == [
        ("tcp_keepalives_count", "3"),
        ("tcp_keepalives_idle", "5"),
        ("tcp_keepalives_interval", "2"),
        ("tcp_user_timeout", "10000"),
    ]


def test_an_index_is_built_and_a_migration_done_whatever_time_a_transaction_may_take(
    with_setting: Set, settings: Settings, database: Engine
) -> None:
    if ask(database, "SELECT current_setting('server_version_num')::int >= 170000 AS knows") == [{"knows": False}]:
        pytest.skip("PostgreSQL has this setting from 17 on")
    with_setting("transaction_timeout", "300ms")
    engine = session.connect_engine(settings.database_url(), "test", timeout_ms=0)
    assert ask(engine, "SELECT pg_sleep(0.5) IS NOT NULL AS done") == [{"done": True}]
    engine.dispose()


@pytest.mark.parametrize("count", [1, 20], ids=["few", "by COPY"])
@pytest.mark.parametrize(("name", "value"), [("default_transaction_read_only", "on"), ("search_path", "pg_catalog")])
def test_what_was_in_the_way_and_is_taken_back_is_so_for_who_is_connected_already(
    with_setting: Set, settings: Settings, database: Engine, name: str, value: str, count: int
) -> None:
    engine = with_setting(name, value)
    records = [a_record(f"text {number}") for number in range(count)]
    for _ in range(2):
        with pytest.raises((SQLAlchemyError, psycopg2.Error)) as raised:
            few(engine, *records) or persist(engine, *records, expect_new=True)
        assert session.is_outage(raised.value)
    run(database, f"ALTER DATABASE {settings.database_name} RESET {name}")
    few(engine, *records) or persist(engine, *records, expect_new=True)
    assert ask(database, "SELECT count(*) AS stored FROM text_messages") == [{"stored": count}]


def test_a_database_that_stores_nothing_is_told_as_away(
    with_setting: Set, settings: Settings, database: Engine, broker: redis.Redis, start: Callable[..., Running]
) -> None:
    """It answers all who only read."""
    observed = Observed(settings, with_setting("default_transaction_read_only", "on"))

    def told() -> tuple[float, list[str]]:
        up = next(iter(PipelineNumbers(observed).collect())).samples[0]
        assert up.labels == {"part": "database"}
        return up.value, [each["problem"] for each in state.everything(observed)["problems"] if each["part"] != "Kafka"]

    start("persist-worker")
    assert eventually(lambda: told() == (1, []))
    send_task(settings, "tasks.persist_text", [list(a_record("text"))])
    said = eventually(lambda: pipeline_state.refused(settings) or "")
    assert said.endswith("in a read-only transaction")
    assert eventually(lambda: told() == (0, [f"a worker cannot store: {said}"]))
    run(database, f"ALTER DATABASE {settings.database_name} RESET default_transaction_read_only")
    eventually(lambda: ask(database, "SELECT FROM text_messages"))
    assert 0 < broker.ttl(REFUSED) <= REFUSED_SECONDS
    broker.delete(REFUSED)
    assert eventually(lambda: told() == (1, []))
