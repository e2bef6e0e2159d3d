"""Kafka, PostgreSQL and Valkey for the benchmarks: the product's own parts and configuration, on free ports and in a
folder of their own, and a new database for each round.

Only one thing differs from what the product runs on: PostgreSQL keeps the time of each commit, so that it can be asked
afterwards when a row became visible (pg_xact_commit_timestamp), and nothing has to watch during a measurement.
"""

import contextlib
import random
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import psycopg2
import redis
from kafka.admin import KafkaAdminClient
from psycopg2 import sql

from benchmarks.ending import undisturbed
from benchmarks.processes import Running, stop_all
from bridge import topics
from settings import Settings
from stack import local_part, postgres_place

# Below the ports that the system hands out for outgoing connections, so that none of these is taken in between.
LOWEST_PORT, HIGHEST_PORT = 20_000, 32_000
POSTGRES_EXTRA = ["-c", "track_commit_timestamp=on"]

WAL_SEGMENTS = 256  # max_wal_size


@dataclass(frozen=True)
class Servers:
    """The running servers. `settings` reach them; databases, topics and consumer groups are made from there."""

    settings: Settings
    running: dict[str, Running]

    @property
    def pids(self) -> dict[str, int]:
        return {name: each.pid for name, each in self.running.items()}

    @property
    def folder(self) -> Path:
        return Path(self.settings.data_dir)

    def connect(self, database: str = "postgres") -> psycopg2.extensions.connection:
        """A connection as the owner, in autocommit."""
        return connect(self.settings, database)

    def run_in(self) -> None:
        """Fills the write-ahead log once. PostgreSQL writes zeros into each new segment, and under load uses segments
        again and again: otherwise the first contestant would pay for what happens once in a server's life."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            for _ in range(WAL_SEGMENTS):
                cursor.execute("SELECT pg_logical_emit_message(FALSE, 'run in', '')")
                cursor.execute("SELECT pg_switch_wal()")
            cursor.execute("CHECKPOINT")

    def create_database(self, name: str) -> None:
        """An empty database; of the databases before it nothing is left to be written to the disk."""
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
            cursor.execute("CHECKPOINT")

    def drop_database(self, name: str) -> None:
        with contextlib.closing(self.connect()) as connection, connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def create_topic(self, name: str) -> None:
        topics.create(replace(self.settings, kafka_topic=name))

    def delete_topic(self, name: str) -> None:
        admin = KafkaAdminClient(**self.settings.kafka_client())
        admin.delete_topics([name, f"{name}.dead-letters"])
        admin.close()

    def empty_broker(self, number: int) -> str:
        """The URL of an empty database of Valkey."""
        url = f"redis://127.0.0.1:{self.settings.redis_port}/{number}"
        with contextlib.closing(redis.Redis.from_url(url)) as client:
            client.flushdb()
        return url


def connect(settings: Settings, database: str) -> psycopg2.extensions.connection:
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        user=settings.database_user,
        password=settings.database_password,
        dbname=database,
    )
    connection.autocommit = True
    return connection


@contextmanager
def started() -> Iterator[Servers]:
    """Starts the servers, and at the end stops them, with whatever else still runs, and removes their data."""
    folder = Path(tempfile.mkdtemp(prefix="text-pipeline-bench-"))
    folder.chmod(0o755)  # PostgreSQL started by root runs as nobody
    ports = free_ports(5)
    settings = Settings(
        data_dir=str(folder),
        kafka_port=ports[0],
        kafka_controller_port=ports[1],
        zookeeper_port=ports[2],
        database_port=ports[3],
        redis_port=ports[4],
        database_name="postgres",
        embedding_provider="hashing",
    )
    running: dict[str, Running] = {}
    try:
        for name in ("postgres", "valkey", "kafka"):
            part = local_part(settings, name)
            part.prepare()
            running[name] = Running(
                name,
                [*part.command, *(POSTGRES_EXTRA if name == "postgres" else [])],
                environment=part.environment,
                folder=part.directory,
                log=folder / "logs" / f"{name}.log",
            )
        for name, each in running.items():
            local_part(settings, name).wait_until_healthy(60, partial(why_it_ended, each))
        servers = Servers(settings, running)
        servers.run_in()
        yield servers
    finally:
        with undisturbed():
            for each in reversed(running.values()):
                each.stop("INT" if each.name == "postgres" else "TERM")
            stop_all()
            postgres_place.remove_data(settings)
            shutil.rmtree(folder, ignore_errors=True)


def why_it_ended(running: Running) -> str | None:
    return None if running.alive else f"it ended:\n{running.log_tail()}"


def free_ports(count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        port = random.randint(LOWEST_PORT, HIGHEST_PORT)
        with socket.socket() as trial, contextlib.suppress(OSError):
            trial.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found
