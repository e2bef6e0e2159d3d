"""What is in a database before the first migration is adopted if it fits, or else refused before anything is done, with
a sentence that names it."""

import uuid
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from db import commands, preconditions, schema, text_index
from db.preconditions import UnusableDatabase
from records import Record
from settings import Settings
from tests.integration.test_migrations import PLAIN_TABLE, connected
from tests.samples import ask

# All that is in the database but what PostgreSQL and pgvector bring.
EVERYTHING = """
    SELECT relkind::text, relpersistence::text, relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'function', '', oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'column', '', attrelid::regclass || '.' || attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT 'extension', '', extname FROM pg_extension
    ORDER BY 1, 3
"""
PLAIN = PLAIN_TABLE.strip()
CHANGED = f"{PLAIN}; ALTER TABLE text_messages "
AUTHOR = f"{PLAIN}; CREATE DOMAIN author AS TEXT "
ANOTHER_TABLE = PLAIN.replace("text_messages", "another")


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (PLAIN.replace("TABLE", "UNLOGGED TABLE"), "text_messages is unlogged, .*: ALTER TABLE text_messages SET LOGG"),
        (
            f"{ANOTHER_TABLE} PARTITION BY HASH (id); "
            "CREATE TABLE text_messages PARTITION OF another FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
            "text_messages is partitioned",
        ),
        (f"{ANOTHER_TABLE}; CREATE TABLE text_messages (PRIMARY KEY (id)) INHERITS (another)", "text_messages inherit"),
        (f"{PLAIN}; CREATE TABLE another () INHERITS (text_messages)", "text_messages inherits from .* or another one"),
        (
            f"{ANOTHER_TABLE}; CREATE VIEW text_messages AS SELECT * FROM another",
            "text_messages is a view, not",
        ),
        (
            f"{ANOTHER_TABLE}; CREATE MATERIALIZED VIEW text_messages AS SELECT * FROM another",
            "text_messages is a materialized view, not a table",
        ),
        (
            "CREATE FOREIGN DATA WRAPPER away; CREATE SERVER away FOREIGN DATA WRAPPER away; "
            "CREATE FOREIGN TABLE text_messages (id UUID) SERVER away",
            "text_messages is a foreign table, not a table",
        ),
        ("CREATE SEQUENCE text_messages", "text_messages is a sequence, not a table"),
        ("CREATE TYPE text_messages AS ENUM ('a')", "the type text_messages has a name that this system needs"),
        (
            f'{PLAIN}; CREATE RULE "no edits" AS ON UPDATE TO text_messages DO INSTEAD NOTHING',
            'text_messages has the rule "no edits", .*: DROP RULE "no edits" ON text_messages',
        ),
        (f"{CHANGED} ENABLE ROW LEVEL SECURITY", "row-level security, .*: ALTER TABLE text_messages DISABLE ROW LEVEL"),
        (
            f"{PLAIN.replace('PRIMARY KEY', 'UNIQUE')}; INSERT INTO text_messages VALUES (NULL, 'x')",
            "text_messages.id may be NULL: ALTER TABLE text_messages ALTER COLUMN id SET NOT NULL",
        ),
        (
            f"{PLAIN.replace('NOT NULL', '')}; INSERT INTO text_messages (id) VALUES (gen_random_uuid())",
            "text_messages has rows whose message is NULL: give them a text, or DELETE",
        ),
        (f"{CHANGED} ALTER created_at TYPE DATE", "text_messages.created_at is date, not timestamp with time zone"),
        (f"{CHANGED} ALTER processed_at TYPE DATE", "text_messages.processed_at is date, not timestamp with time zone"),
        (f"{CHANGED} ALTER created_at TYPE TIMESTAMP", "created_at is timestamp without time zone, not timestamp with"),
        (f"{CHANGED} ALTER processed_at TYPE TIMESTAMPTZ(3)", r"processed_at is timestamp\(3\) with time zone, not"),
        (
            f"{CHANGED} ADD source_id TEXT GENERATED ALWAYS AS (upper(message)) STORED",
            "text_messages.source_id is computed from other columns",
        ),
        (
            f"{AUTHOR} NOT NULL; ALTER TABLE text_messages ADD author author",
            "author is of the domain author, which",
        ),
        (
            f"{AUTHOR} NOT NULL; CREATE DOMAIN person AS author; ALTER TABLE text_messages ADD author person",
            "text_messages.author is of the domain person, which takes no NULL",
        ),
        (f"{AUTHOR} CHECK (VALUE IS NOT NULL); ALTER TABLE text_messages ADD author author", "author is of the domain"),
        (
            f"{CHANGED} ADD version_offset INTEGER",
            "the column text_messages.version_offset has a name",
        ),
        ("CREATE TABLE message_embeddings_part_1 (id BIGINT)", "the table message_embeddings_part_1 has a name"),
        ("CREATE TABLE dead_letters (id BIGINT)", "the table dead_letters has a name .*: rename it, or give this"),
        ("CREATE VIEW embedding_jobs AS SELECT 1 AS id", "the view embedding_jobs has a name"),
        ("CREATE SEQUENCE durable_commits", "the sequence durable_commits has a name"),
        ("CREATE TYPE message_embeddings AS (id UUID)", "the type message_embeddings has a name"),
        ("CREATE DOMAIN reembedding AS TEXT", "the type reembedding has a name"),
        (
            f"{PLAIN}; CREATE INDEX text_messages_metadata ON text_messages (message)",
            "the index text_messages_metadata",
        ),
        (
            f"{PLAIN}; CREATE INDEX text_messages_words_german ON text_messages (message)",
            "the index text_messages_words_german has a name",
        ),
        (
            "CREATE FUNCTION message_words(TEXT) RETURNS INTEGER LANGUAGE sql AS 'SELECT 1'",
            r"the function message_words\(text\) has a name",
        ),
        (
            f"{PLAIN}; CREATE FUNCTION own() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; "
            "CREATE TRIGGER text_messages_typed AFTER INSERT ON text_messages EXECUTE FUNCTION own()",
            "the trigger text_messages_typed has a name",
        ),
        (
            "CREATE TABLE alembic_version (version_num VARCHAR(32)); INSERT INTO alembic_version VALUES ('0001')",
            r"alembic_version is another program's \(revision 0001\): give this system a database of its own",
        ),
        (
            f"{PLAIN}; CREATE TABLE alembic_version (version_num VARCHAR(32)); "
            "INSERT INTO alembic_version VALUES ('4ab2'), ('5bc3')",
            r"alembic_version is another program's \(revision 4ab2, 5bc3\)",
        ),
        ("CREATE TABLE alembic_version (version INTEGER)", "alembic_version is another program's: give this system a"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_done(empty_database: Settings, made: str, said: str) -> None:
    with connected(empty_database) as connection:
        connection.exec_driver_sql(made)
        before = connection.execute(text(EVERYTHING)).all()
    with pytest.raises(UnusableDatabase, match=said):
        schema.upgrade(empty_database)
    with connected(empty_database) as connection:
        assert connection.execute(text(EVERYTHING)).all() == before


def test_a_table_of_another_role_is_refused(empty_database: Settings) -> None:
    role = f"guest_of_{empty_database.database_name}"
    with connected(empty_database) as connection:
        connection.exec_driver_sql(
            f"{PLAIN}; CREATE ROLE {role} LOGIN PASSWORD 'PASSWORD'; GRANT ALL ON SCHEMA public TO {role}"
        )
        connection.exec_driver_sql("CREATE EXTENSION vector")
    guest = replace(empty_database, database_user=role, database_password="PASSWORD")
    try:
        with pytest.raises(
            UnusableDatabase, match=f"belongs to the role postgres, .*: ALTER TABLE text_messages OWNER TO {role}"
        ):
            schema.upgrade(guest)
    finally:
        with connected(empty_database) as connection:
            connection.exec_driver_sql(f"DROP OWNED BY {role}; DROP ROLE {role}")


FITTING = f"""
    {PLAIN.replace("PRIMARY KEY", "NOT NULL UNIQUE").replace("TEXT NOT NULL", "TEXT")};
    ALTER TABLE text_messages ALTER created_at TYPE TIMESTAMPTZ(6);
    CREATE DOMAIN author AS TEXT NOT NULL;
    CREATE DOMAIN known_author AS TEXT NOT NULL DEFAULT 'nobody';
    CREATE DOMAIN reader AS TEXT;
    ALTER TABLE text_messages ADD author author DEFAULT 'nobody', ADD other known_author, ADD reader reader;
    INSERT INTO text_messages VALUES (gen_random_uuid(), 'there');
    CREATE SCHEMA another;
    CREATE TABLE another.dead_letters (id BIGINT);
    CREATE FUNCTION another.message_words(TEXT) RETURNS INTEGER LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION queue_embedding(TEXT) RETURNS INTEGER LANGUAGE sql AS 'SELECT 1';
    CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);
"""


def test_what_fits_is_adopted(empty_database: Settings) -> None:
    with connected(empty_database) as connection:
        connection.exec_driver_sql(FITTING)
    assert schema.upgrade(empty_database) == schema.latest()
    with connected(empty_database) as connection:
        record = Record(str(uuid.uuid4()), None, "from the log", None, 1_700_000_000_000, 0, 0)
        assert commands.persist(connection, [record]).queued == [record.id]
        stored = connection.execute(text("SELECT message, author, other, reader FROM text_messages ORDER BY 1"))
        assert [tuple(row) for row in stored] == [
            ("from the log", "nobody", "nobody", None),
            ("there", "nobody", "nobody", None),
        ]


def test_every_name_that_the_migrations_give_is_known(database: Engine) -> None:
    relations = """
        SELECT relname FROM pg_class c WHERE relnamespace = 'public'::regnamespace
            AND relname NOT IN ('text_messages', 'alembic_version')
            AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = c.oid)
            AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = c.oid AND refobjsubid > 0 AND deptype = 'i')
    """
    functions = """
        SELECT replace(oid::regprocedure::text, ' ', '') AS name FROM pg_proc p
        WHERE pronamespace = 'public'::regnamespace
            AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    """
    triggers = "SELECT tgname FROM pg_trigger WHERE tgrelid = 'text_messages'::regclass AND NOT tgisinternal"
    columns = "SELECT attname FROM pg_attribute WHERE attrelid = 'text_messages'::regclass AND attnum > 0"
    built = {"embedding_failures_pkey", text_index.METADATA}
    assert {row["relname"] for row in ask(database, relations)} | built == set(preconditions.RELATIONS)
    assert {row["name"] for row in ask(database, functions)} == set(preconditions.FUNCTIONS)
    assert {row["tgname"] for row in ask(database, triggers)} == set(preconditions.TRIGGERS)
    adopted = {*preconditions.ADOPTED, *preconditions.COLUMNS}
    assert {row["attname"] for row in ask(database, columns)} == adopted
