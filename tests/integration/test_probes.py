"""What asks how PostgreSQL is, for ./start.sh, ./status.sh and the autoscaler, has an answer within seconds."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis
from sqlalchemy import Connection, Engine, text

from benchmarks.servers import free_ports
from settings import Settings
from stack import local_part, pipeline_state, probes
from tests.conftest import administer
from tests.parts import Running, eventually
from tests.samples import meanwhile, wait_until_blocked
from tests.tcp_proxy import TcpProxy


@pytest.fixture
def locked(database: Engine) -> Iterator[Connection]:
    """A transaction that has the table of the jobs for itself, as a migration may."""
    with database.begin() as connection:
        connection.execute(text("LOCK TABLE embedding_jobs IN ACCESS EXCLUSIVE MODE"))
        yield connection


def test_a_lock_is_not_waited_for(settings: Settings, locked: Connection) -> None:
    found: list[int | None] = []
    with meanwhile(lambda: found.append(pipeline_state.texts_pending(settings))):
        pass
    assert found == [None]
    locked.rollback()
    assert pipeline_state.texts_pending(settings) == 0


def test_a_server_that_goes_silent_is_given_up(
    settings: Settings, database: Engine, locked: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int | None] = []
    with TcpProxy(settings.database_port) as proxy:
        through = replace(settings, database_port=proxy.port)
        with meanwhile(lambda: found.append(pipeline_state.texts_pending(through))):
            wait_until_blocked(database)
            assert proxy.fall_silent(new_too=True) == 1
        assert found == [None]
        monkeypatch.setattr(probes, "_LOGIN_SECONDS", 0.5)
        assert "no answer within 0.5 s" in (probes.database(through) or "")


def test_a_database_that_is_missing_is_made(
    settings: Settings, postgres: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert f'database "{settings.database_name}" does not exist' in (probes.database(settings) or "")
    ask = probes.ask_postgres

    def ask_in_german(settings: Settings, database: str, *arguments: Any, **options: Any) -> Any:
        try:
            return ask(settings, database, *arguments, **options)
        except psycopg2.OperationalError as error:
            raise psycopg2.OperationalError(f"FATAL:  Datenbank »{database}« existiert nicht") from error

    monkeypatch.setattr(probes, "ask_postgres", ask_in_german)
    try:
        assert probes.database(settings, create=True) is None
        assert probes.database(settings) is None
    finally:
        administer(settings, "DROP DATABASE {name} WITH (FORCE)", settings.database_name)


def test_a_wrong_password_is_told(settings: Settings, database: Engine) -> None:
    problem = probes.database(replace(settings, database_password="another"))
    assert problem is not None
    assert problem.endswith(probes.OTHER_PASSWORD)


def test_a_redis_that_is_a_cluster_is_told(settings: Settings, tmp_path: Path) -> None:
    """It answers a PING, and no worker can wait for its queues."""
    port, bus = free_ports(2)  # by itself it would take a port for its bus that there may not be: port + 10,000
    alone = replace(settings, data_dir=str(tmp_path), redis_port=port, redis_url="")
    part = local_part(alone, "valkey")
    command = [*part.command, "--cluster-enabled", "yes", "--cluster-port", str(bus)]
    server = Running(replace(part, command=command), tmp_path / "valkey.log")
    try:
        eventually(lambda: probes.tcp("127.0.0.1", alone.redis_port) is None)
        assert "is a cluster" in (probes.redis(alone) or "")
        client = redis.Redis(port=alone.redis_port)
        client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)  # type: ignore[no-untyped-call]
        client.close()
        assert "is a cluster" in (probes.redis(alone) or "")
    finally:
        server.stop()
