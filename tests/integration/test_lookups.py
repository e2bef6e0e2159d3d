"""Many messages are looked up by their ids, whatever other index of the table has an id somewhere in it."""

import hashlib
import uuid
from collections.abc import Callable, Iterator

import pytest
from sqlalchemy import Connection, Engine, text

from db import commands, embeddings, outbox, queries, second_set
from db.reembedding import Change
from settings import Settings
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
    return len(embeddings.texts(connection, ids, most_bytes=10**9)[0])


def current_hashes(connection: Connection, ids: list[str]) -> int:
    return len(embeddings.current_hashes(connection, ids))


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


@pytest.fixture
def twenty_thousand(database: Engine) -> Iterator[None]:
    """Messages with their vectors, of which PostgreSQL would rather read all than look up those of a page of ten."""
    with database.begin() as connection:
        embeddings.register_model(connection, MODEL, 4)
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message, created_at)
                SELECT gen_random_uuid(), 'a message ' || number, to_timestamp(number)
                FROM generate_series(1, 20000) AS number
            """)
        )
        connection.execute(
            text("""
                INSERT INTO message_embeddings (message_id, passage_start, passage_end, content_hash, model, embedding)
                SELECT id, 0, 4, content_hash, :model, '[1,0,0,0]' FROM text_messages
            """),
            {"model": MODEL},
        )
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE text_messages, message_embeddings"))
    yield
    run(database, "TRUNCATE text_messages")


@pytest.mark.parametrize("words", [None, "message"])
@pytest.mark.usefixtures("twenty_thousand")
def test_a_page_of_messages_looks_up_its_vectors(database: Engine, words: str | None) -> None:
    with database.begin() as connection:
        page = queries.newest(connection, Settings(), limit=10, words=words)
        assert [each["embedding"] for each in page["messages"]] == ["ready"] * 10
        scans = "SELECT pg_stat_get_xact_numscans('message_embeddings'::regclass)"
        assert connection.execute(text(scans)).scalar_one() == 0


@pytest.mark.parametrize("words", [None, "long"])
@pytest.mark.parametrize("column", ["message", "metadata"])
def test_a_page_ends_after_eight_megabytes_and_the_next_goes_on(
    database: Engine, words: str | None, column: str
) -> None:
    """Compressed, all of it is smaller than a page."""
    values = "repeat('long ', 20000), NULL" if column == "message" else "'long', jsonb_build_array(repeat('x', 100000))"
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        connection.execute(
            text(f"""INSERT INTO text_messages (id, message, metadata, created_at)
                SELECT gen_random_uuid(), {values}, to_timestamp(number / 30) FROM generate_series(1, 100) AS number""")
        )
    found: list[str] = []
    sizes: list[int] = []
    after = None
    with database.connect() as connection:
        while not sizes or after is not None:
            page = queries.newest(connection, Settings(), limit=90, after=after, words=words)
            sizes.append(page["count"])
            found += [each["id"] for each in page["messages"]]
            after = page["next"]
        order = "SELECT id::text FROM text_messages ORDER BY created_at DESC, id DESC"
        assert found == list(connection.execute(text(order)).scalars())
    assert sizes == [80, 20]
    run(database, "TRUNCATE text_messages")


@pytest.mark.usefixtures("twenty_thousand")
def test_a_second_set_looks_up_the_vectors_of_a_piece(database: Engine) -> None:
    change = Change("running", "second", None, undoing=False, scanned_to=None, scanned=False, seconds=0.0)
    with database.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO message_embeddings (message_id, passage_start, passage_end, content_hash, model, embedding)
                SELECT id, 0, 4, content_hash, 'second', '[1,0,0,0]' FROM text_messages
            """)
        )
    with database.begin() as connection:
        second_set.scan(connection, change)
        scans = """SELECT sum(pg_stat_get_xact_numscans(indexrelid)) FROM pg_index
            WHERE indrelid = 'message_embeddings'::regclass"""
        assert connection.execute(text(scans)).scalar_one() >= second_set.SCAN_ROWS


@pytest.fixture
def edited(database: Engine) -> Engine:
    """20,000 messages with a vector each, in tables that nobody has analysed yet."""
    with database.begin() as connection:
        connection.execute(text("SET LOCAL session_replication_role = replica"))  # no jobs
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message) SELECT md5(number::text)::uuid, number
                FROM generate_series(1, 20000) AS number
            """)
        )
        connection.execute(
            text("""
                INSERT INTO message_embeddings (message_id, passage_start, passage_end, content_hash, model, embedding)
                SELECT id, 0, 1, content_hash, :model, array_fill(0.5, ARRAY[384])::real[]::halfvec FROM text_messages
            """),
            {"model": MODEL},
        )
    return database


def edit(connection: Connection, first: int, last: int) -> None:
    connection.execute(
        text("""
            UPDATE text_messages SET message = message || '!'
            WHERE id IN (SELECT md5(number::text)::uuid FROM generate_series(:first ::int, :last ::int) AS number)
        """),
        {"first": first, "last": last},
    )


@pytest.mark.parametrize(
    "statement", ["UPDATE text_messages SET message = message || '!'", "DELETE FROM text_messages"]
)
def test_many_edits_and_deletions_look_up_their_vectors(edited: Engine, statement: str) -> None:
    ids = [str(uuid.UUID(bytes=hashlib.md5(str(number).encode()).digest())) for number in range(1, 501)]
    seen = text("SELECT seq_tup_read, idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'message_embeddings'")
    with edited.begin() as connection:
        before = connection.execute(seen).one()
        connection.execute(text(f"{statement} WHERE id = ANY (:ids ::uuid[])"), {"ids": ids})
        after = connection.execute(seen).one()
        left = connection.execute(text("SELECT count(*) FROM message_embeddings")).scalar_one()
    assert left == 19_500
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, MANY]


def test_many_edits_after_one_are_not_compared_with_each_other(edited: Engine) -> None:
    """A session keeps the plan of its first edit."""

    def milliseconds(connection: Connection) -> float:
        """What the trigger takes for 4,000 edits, without the functions that it calls."""
        taken = text("""
            SELECT coalesce(sum(self_time), 0) FROM pg_stat_xact_user_functions
            WHERE funcname = 'text_messages_updated'
        """)
        connection.execute(text("SET track_functions = 'pl'"))
        before = connection.execute(taken).scalar_one()
        edit(connection, 2, 4_001)
        return float(connection.execute(taken).scalar_one() - before)

    edited.dispose()
    with edited.begin() as connection, edited.connect() as other:
        edit(connection, 1, 1)
        after_one = milliseconds(connection)
        connection.rollback()
        assert after_one < 10 * milliseconds(other)
