"""Many messages are looked up by their ids, whatever other index of the table has an id somewhere in it."""

from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from db import commands, outbox
from tests.samples import MODEL, a_record, run

MANY = 500


@pytest.fixture
def ids(database: Engine) -> Iterator[list[str]]:
    """Of a part of 100,000 messages that came by the thousand: so many that PostgreSQL 18 would rather skip through the
    index over (created_at, id) than look 500 of them up."""
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no jobs
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message, created_at)
                SELECT gen_random_uuid(), repeat('a message ', 10) || number, to_timestamp(number / 1000)
                FROM generate_series(1, 100000) AS number
            """)
        )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE text_messages"))
    with database.connect() as connection:
        query = text("SELECT id::text FROM text_messages ORDER BY created_at LIMIT :many")
        found = list(connection.execute(query, {"many": MANY}).scalars())
    yield found
    run(database, "TRUNCATE text_messages")


def texts(connection: Connection, ids: list[str]) -> int:
    return len(outbox.texts(connection, ids))


def current_hashes(connection: Connection, ids: list[str]) -> int:
    return len(outbox.current_hashes(connection, ids))


def requeue_outdated(connection: Connection, ids: list[str]) -> int:
    outbox.requeue_outdated(connection, MODEL, [bytes.fromhex(each.replace("-", "")) for each in ids])
    return int(connection.execute(text("SELECT sum(cardinality(message_ids)) FROM embedding_jobs")).scalar_one())


def tombstones(connection: Connection, ids: list[str]) -> int:
    commands.persist(connection, [a_record(None, id=each) for each in ids])
    return int(connection.execute(text("SELECT count(*) FROM deleted_messages")).scalar_one())


@pytest.mark.parametrize("used", [texts, current_hashes, requeue_outdated, tombstones])
def test_by_the_primary_key(database: Engine, ids: list[str], used: Callable[[Connection, list[str]], int]) -> None:
    with database.begin() as connection:
        assert used(connection, ids) == MANY
        scans = "SELECT pg_stat_get_xact_numscans(CAST(:name AS regclass))"
        assert connection.execute(text(scans), {"name": "text_messages_newest"}).scalar_one() == 0
        assert connection.execute(text(scans), {"name": "text_messages_pkey"}).scalar_one() > 0
