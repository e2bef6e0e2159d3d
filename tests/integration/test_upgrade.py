"""An upgrade without downtime: a migration under load, and under somebody who reads for long, stops nobody."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
import pytest
import requests
from alembic.config import Config
from sqlalchemy import Connection, Engine

from db import schema, session
from settings import Settings
from tests.integration.test_bridge import all_committed, stored
from tests.parts import Running, eventually
from tests.pipeline import PARTS, Pipeline
from tests.samples import ask

Start = Callable[..., Running]

# What a release may bring: a column, and an index that is built beside its users.
REVISION = '''
"""A column and an index."""
from alembic import op

revision = "test"
down_revision = "{before}"


def upgrade() -> None:
    op.execute("ALTER TABLE text_messages ADD COLUMN IF NOT EXISTS of_test TEXT DEFAULT 'new'")
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS text_messages_of_test")
        op.execute("CREATE INDEX CONCURRENTLY text_messages_of_test ON text_messages (processed_at)")


def downgrade() -> None:
    op.execute("DROP INDEX text_messages_of_test")
    op.execute("ALTER TABLE text_messages DROP COLUMN of_test")
'''


@pytest.fixture
def before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The revision that the test's own one follows, in a folder beside those of the project."""
    before = schema.latest()
    (tmp_path / "test_revision.py").write_text(REVISION.format(before=before))
    plain = schema.configuration

    def with_it(connection: Connection | None = None) -> Config:
        config = plain(connection)
        own = Path(config.get_main_option("script_location") or "") / "versions"
        config.set_main_option("path_separator", "newline")
        config.set_main_option("version_locations", f"{own}\n{tmp_path}")
        return config

    monkeypatch.setattr(schema, "configuration", with_it)
    return before


class Users(threading.Thread):
    """Sends a text, reads and searches, again and again; keeps what went wrong."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__()
        self.pipeline = pipeline
        self.ids: list[str] = []
        self.answers = 0
        self.wrong: list[str] = []
        self.ended = threading.Event()

    def run(self) -> None:
        for number in itertools.count():
            self.ids.append(self.pipeline.send(f"number {number}"))
            for ask_one in (self.read, self.search):
                try:
                    ask_one()
                    self.answers += 1
                except (AssertionError, requests.RequestException) as error:
                    self.wrong.append(repr(error))
            if self.ended.wait(0.02):
                return

    def read(self) -> None:
        self.pipeline.message(self.ids[0])

    def search(self) -> None:
        self.pipeline.search("number", limit=3, mode="hybrid")

    def end(self) -> None:
        self.ended.set()
        self.join()


@pytest.fixture
def users(settings: Settings, start: Start) -> Iterator[Users]:
    with Pipeline(settings, {name: start(name) for name in PARTS}) as pipeline:
        users = Users(pipeline)
        users.start()
        yield users
        users.end()


@pytest.fixture
def long_reader(settings: Settings) -> Iterator["psycopg2.extensions.connection"]:
    """A session that may hold a table for as long as it likes, like a report or a dump."""
    connection = psycopg2.connect(settings.database_url().replace("postgresql+psycopg2", "postgresql"))
    yield connection
    connection.close()


def waits_for_table(database: Engine) -> bool:
    """Whether the migration is at the statement that needs the table for itself."""
    return bool(
        ask(
            database,
            """
            SELECT 1 FROM pg_stat_activity
            WHERE application_name LIKE '%migrate' AND wait_event_type = 'Lock' AND query ~ 'ALTER TABLE|DROP INDEX'
                AND datname = current_database()
            """,
        )
    )


def columns(database: Engine) -> set[str]:
    found = ask(database, "SELECT column_name FROM information_schema.columns WHERE table_name = 'text_messages'")
    return {str(row["column_name"]) for row in found}


def test_a_migration_under_load_stops_nobody_and_loses_nothing(
    settings: Settings,
    database: Engine,
    before: str,
    users: Users,
    long_reader: "psycopg2.extensions.connection",
) -> None:
    eventually(lambda: len(stored(database)) > 20, timeout=30)
    reached: list[str] = []
    for direction, revision, has_column in ((schema.upgrade, "head", True), (schema.downgrade, before, False)):
        migration = threading.Thread(target=lambda go=direction, to=revision: reached.append(go(settings, to)))
        with long_reader.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM text_messages")  # from now on it holds the table
            migration.start()
            eventually(lambda: waits_for_table(database))
            went_on_meanwhile(database, users, migration)
            long_reader.rollback()
        migration.join(60)
        assert not migration.is_alive()
        assert ("of_test" in columns(database)) is has_column
    assert reached == ["test", before]
    users.end()
    assert users.wrong == []
    eventually(lambda: set(users.ids) <= set(stored(database)), timeout=30)
    eventually(lambda: all_committed(settings))
    eventually(lambda: not ask(database, "SELECT 1 FROM embedding_jobs WHERE NOT deleted LIMIT 1"), timeout=30)


def went_on_meanwhile(database: Engine, users: Users, migration: threading.Thread) -> None:
    """While the migration cannot have the table, texts are stored and questions answered."""
    answers, texts = users.answers, len(stored(database))
    deadline = time.monotonic() + 30
    while users.answers < answers + 40 or len(stored(database)) < texts + 20:
        assert time.monotonic() < deadline, "everybody waits behind the migration"
        assert migration.is_alive(), "it had the table, although somebody read it"
        time.sleep(0.05)
    assert session.LOCK_MS > schema.LOCK_MS  # so that who has to wait waits for less than he would give up after
