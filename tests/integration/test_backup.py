"""Backup and restore as docs/operations.md says: a dump while messages flow, restored, and the rest from the log."""

import itertools
import json
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from kafka import KafkaProducer
from sqlalchemy import Engine

import kafka_clients
from db import schema, session
from settings import ROOT, Settings
from stack import postgres_place
from tests.conftest import administer
from tests.integration.test_bridge import all_committed, stored
from tests.kafka_cli import Cli
from tests.parts import Running, eventually, stop_all
from tests.pipeline import Pipeline
from tests.samples import ask

PARTS = ("persist-worker", "embed-worker", "beat", "bridge")
Start = Callable[..., Running]


class Stream(threading.Thread):
    """Sends texts, edits, deletions and bad records until it is ended."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.settings = settings
        self.sent = 0
        self.ended = threading.Event()

    def run(self) -> None:
        producer = kafka_clients.connect(KafkaProducer, self.settings, acks="all")
        for number in itertools.count():
            for key, value in records(number):
                producer.send(self.settings.kafka_topic, value, key=key)
            self.sent = number + 1
            if self.ended.wait(0.01):
                break
        producer.close(timeout=10)

    def end(self) -> None:
        self.ended.set()
        self.join()


def records(number: int) -> Iterator[tuple[bytes, bytes | None]]:
    def a_text(number: int, text: str) -> tuple[bytes, bytes]:
        return f"n-{number}".encode(), json.dumps({"id": f"n-{number}", "text": text}).encode()

    yield a_text(number, f"text {number}")
    if number % 7 == 3:
        yield a_text(number - 3, f"text {number - 3} edited")
    if number % 11 == 5:
        yield f"n-{number - 5}".encode(), None
    if number % 13 == 4:
        yield f"bad-{number}".encode(), b"no json"


def restore_options() -> list[str]:
    """How docs/operations.md calls pg_restore; where the server is and into which database left out."""
    (line,) = [
        line
        for line in (ROOT / "docs/operations.md").read_text().replace("\\\n", "").splitlines()
        if "bin/pg_restore " in line
    ]
    words = shlex.split(line)
    return [word for word in words[words.index("-U") + 2 : words.index("-d")] if word.startswith("--")]


def tool(settings: Settings, name: str, *arguments: str) -> str:
    """pg_dump or pg_restore of the PostgreSQL that runs; returns what it prints."""
    server = ["-h", settings.database_address, "-p", str(settings.database_port), "-U", settings.database_user]
    ended = subprocess.run(
        [str(postgres_place.binaries(settings) / name), *server, *arguments],
        env={**os.environ, "PGPASSWORD": settings.database_password},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def rows(engine: Engine) -> list[dict[str, object]]:
    """What a message is, its version and whether the vector is that of its text; times of this database left out."""
    return ask(
        engine,
        """
        SELECT m.id::text, m.source_id, m.message, m.metadata, m.created_at::text,
            m.version_timestamp, m.version_partition, m.version_offset,
            array_agg(e.content_hash = m.content_hash) AS vectors
        FROM text_messages m LEFT JOIN message_embeddings e ON e.message_id = m.id
        GROUP BY m.id ORDER BY m.id
        """,
    )


def bad_ones(engine: Engine) -> list[dict[str, object]]:
    return ask(engine, 'SELECT topic, partition, "offset", reason FROM dead_letters ORDER BY 1, 2, 3')


def settled(settings: Settings, engine: Engine) -> bool:
    return all_committed(settings) and not ask(engine, "SELECT 1 FROM embedding_jobs WHERE NOT deleted LIMIT 1")


@pytest.fixture
def restored(settings: Settings, database: Engine) -> Iterator[Settings]:
    """The settings of a system on a new database, which is empty."""
    new = replace(settings, database_name=f"{settings.database_name}_restored")
    administer(new, "CREATE DATABASE {name}", new.database_name)
    yield new
    administer(new, "DROP DATABASE {name} WITH (FORCE)", new.database_name)


def test_a_dump_taken_while_messages_flow_and_the_log_since_then_make_the_same_database(
    cli: Cli,
    settings: Settings,
    restored: Settings,
    database: Engine,
    start: Start,
    broker: redis.Redis,
    tmp_path: Path,
) -> None:
    dump = tmp_path / "texts.dump"
    running = [start(name, index_seal_rows=100) for name in PARTS]
    stream = Stream(settings)
    stream.start()
    try:
        eventually(lambda: len(stored(database)) > 300, timeout=30)
        # First the place, then the dump: what lies before it is in there.
        lag = json.loads(cli("lag", "--json"))
        tool(settings, "pg_dump", "-Fc", "-f", str(dump), settings.database_name)
        at_dump = stream.sent
        eventually(lambda: stream.sent > at_dump + 300, timeout=30)
    finally:
        stream.end()
    eventually(lambda: settled(settings, database), timeout=60, interval=0.5)
    whole = rows(database)
    stop_all(running)

    tool(restored, "pg_restore", *restore_options(), "-d", restored.database_name, str(dump))
    schema.upgrade(restored)  # the role of the APIs is no part of a dump
    new = session.connect_engine(restored.database_url(), "test", pool_size=2)
    try:
        in_dump = len(rows(new))
        assert 0 < in_dump < len(whole)
        for name in PARTS:
            start(name, database_name=restored.database_name, index_seal_rows=100)
        places = [f"{part['partition']}:{part['committed'] or 0}" for part in lag["partitions"]]
        Cli(restored)("rewind", "--yes", *itertools.chain(*(("--to-offset", place) for place in places)))
        eventually(lambda: len(rows(new)) == len(whole) and settled(restored, new), timeout=60, interval=0.5)
        assert rows(new) == whole
        assert all(row["vectors"] == [True] for row in rows(new))
        assert bad_ones(new) == bad_ones(database)
        api = start("search-api", database_name=restored.database_name)
        with Pipeline(restored, {"search-api": api}) as seen:
            text = str(whole[-1]["message"])
            assert text in [hit["message"] for hit in seen.search(text, limit=100)]
    finally:
        new.dispose()


def test_a_restore_asks_for_no_role_that_a_new_server_does_not_have(
    settings: Settings, database: Engine, tmp_path: Path
) -> None:
    dump = tmp_path / "texts.dump"
    tool(settings, "pg_dump", "-Fc", "-f", str(dump), settings.database_name)
    assert "GRANT" in tool(settings, "pg_restore", "-f", "-", str(dump))
    statements = tool(settings, "pg_restore", *restore_options(), "-f", "-", str(dump))
    assert "CREATE TABLE public.text_messages" in statements
    for asks in (settings.database_reader_user, "GRANT", "OWNER TO"):
        assert asks not in statements
