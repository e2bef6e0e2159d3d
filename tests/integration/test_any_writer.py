"""Whoever may write the table of texts reaches the search index, whatever role it is and wherever it looks."""

import uuid
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import ProgrammingError

from db import schema, session, text_index
from settings import Settings
from tests.samples import ask, run

FIRST, SECOND = str(uuid.UUID(int=7)), str(uuid.UUID(int=8))
JOBS = "SELECT message_ids::text[] AS ids, deleted FROM embedding_jobs ORDER BY id"
DELETED = "SELECT id::text FROM deleted_messages ORDER BY id"


@pytest.fixture
def application(database: Engine) -> Iterator[str]:
    """A role that has the table of texts and nothing else."""
    name = f"application_{uuid.uuid4().hex[:8]}"
    run(database, f"CREATE ROLE {name}")
    run(database, f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON text_messages TO {name}")
    yield name
    run(database, f"DROP OWNED BY {name}")
    run(database, f"DROP ROLE {name}")


def type_all(connection: Connection) -> None:
    """Each kind of statement."""
    for statement in (
        f"INSERT INTO public.text_messages (id, message) VALUES ('{FIRST}', 'one'), ('{SECOND}', 'two')",
        f"UPDATE public.text_messages SET message = 'three' WHERE id = '{FIRST}'",
        f"DELETE FROM public.text_messages WHERE id = '{SECOND}'",
        f"INSERT INTO public.text_messages (id, message) VALUES ('{SECOND}', 'again')",
        "TRUNCATE public.text_messages CASCADE",
        f"INSERT INTO public.text_messages (id, message) VALUES ('{FIRST}', 'last')",
    ):
        connection.execute(text(statement))


DONE = [
    {"ids": [FIRST, SECOND], "deleted": False},
    {"ids": [FIRST], "deleted": False},
    {"ids": [SECOND], "deleted": True},
    {"ids": [SECOND], "deleted": False},
    {"ids": [FIRST, SECOND], "deleted": True},
    {"ids": [FIRST], "deleted": False},
]


def look(database: Engine) -> None:
    found = ask(database, JOBS)
    assert [{**job, "ids": sorted(job["ids"])} for job in found] == DONE
    assert ask(database, DELETED) == [{"id": FIRST}, {"id": SECOND}]
    assert ask(database, "SELECT id::text, message FROM text_messages") == [{"id": FIRST, "message": "last"}]


def test_a_role_that_has_the_table_alone(database: Engine, application: str) -> None:
    with database.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {application}"))
        type_all(connection)
    look(database)


@pytest.mark.parametrize("path", ["''", "pg_catalog", "'nowhere'"])
def test_with_any_search_path(database: Engine, path: str) -> None:
    with database.begin() as connection:
        connection.execute(text(f"SET LOCAL search_path = {path}"))
        type_all(connection)
    look(database)


def test_a_table_of_the_sessions_own_is_not_taken_for_the_outbox(database: Engine, application: str) -> None:
    with database.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {application}"))
        for name in ("embedding_jobs", "deleted_messages"):
            connection.execute(text(f"CREATE TEMPORARY TABLE {name} (LIKE public.text_messages) ON COMMIT DROP"))
        type_all(connection)
    look(database)


def test_nobody_else_hangs_the_triggers_on_a_table_of_his_own(database: Engine, application: str) -> None:
    with database.connect() as connection:
        connection.execute(text(f"SET LOCAL ROLE {application}"))
        connection.execute(text("CREATE TEMPORARY TABLE forged (LIKE public.text_messages)"))
        with pytest.raises(ProgrammingError, match="permission denied for function text_messages_deleted"):
            connection.execute(
                text("""
                    CREATE TRIGGER forged AFTER DELETE ON forged REFERENCING OLD TABLE AS old_rows
                    FOR EACH STATEMENT EXECUTE FUNCTION text_messages_deleted()
                """)
            )


def test_a_restore_without_privileges_is_guarded_by_the_next_upgrade(
    settings: Settings, database: Engine, application: str
) -> None:
    run(database, "GRANT EXECUTE ON FUNCTION text_messages_deleted() TO PUBLIC")
    may = f"SELECT has_function_privilege('{application}', 'text_messages_deleted()', 'EXECUTE') AS may"
    assert ask(database, may) == [{"may": True}]
    schema.upgrade(settings)
    assert ask(database, may) == [{"may": False}]


def test_the_triggers_look_where_the_table_lies(empty_database: Settings) -> None:
    schema.upgrade(empty_database, "0013")
    engine = session.connect_engine(empty_database.database_url(), "test")
    try:
        run(engine, f'CREATE SCHEMA "{empty_database.database_user}"')  # the first place of the usual search_path
        schema.upgrade(empty_database)
        with engine.begin() as connection:
            type_all(connection)
        look(engine)
    finally:
        engine.dispose()


def test_where_functions_are_not_for_everybody_texts_can_be_written_and_searched(empty_database: Settings) -> None:
    engine = session.connect_engine(empty_database.database_url(), "test")
    reader = session.connect_engine(empty_database.database_url(reader=True), "test")
    name = f"application_{uuid.uuid4().hex[:8]}"
    try:
        run(engine, "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC")
        schema.upgrade(empty_database)
        run(engine, f"CREATE ROLE {name}")
        run(engine, f"GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON text_messages TO {name}")
        with engine.begin() as connection:
            connection.execute(text(f"SET LOCAL ROLE {name}"))
            type_all(connection)
        look(engine)
        words = text_index.words("english")
        assert ask(reader, f"SELECT message FROM text_messages WHERE {words} @@ to_tsquery('last')")
        assert ask(reader, "SELECT halfvec '[1]' <=> halfvec '[1]' AS far") == [{"far": 0.0}]
        assert ask(reader, "SELECT index_name FROM vector_index_progress()") == []
    finally:
        reader.dispose()
        run(engine, f"DROP OWNED BY {name}")
        run(engine, f"DROP ROLE {name}")
        engine.dispose()
