"""Parts that answer late or not at all, through a proxy between them: no wait is without an end, and work goes on."""

import threading
from collections.abc import Callable
from io import StringIO

import psycopg2
import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError

from db import session
from settings import Settings
from tests.parts import Running, eventually
from tests.surrounded import Surrounded
from tests.tcp_proxy import TcpProxy


def copy(connection: Connection) -> None:
    connection.connection.cursor().copy_expert("COPY (SELECT 1) TO STDOUT", StringIO())


@pytest.mark.parametrize(
    "wait",
    [lambda connection: connection.execute(text("SELECT 1")), copy, Connection.commit, Connection.rollback],
    ids=["statement", "copy", "commit", "rollback"],
)
def test_a_silent_database_is_given_up(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch, wait: Callable[[Connection], object]
) -> None:
    monkeypatch.setattr(session, "LATE_ANSWER_MS", 100)
    with TcpProxy(settings.database_port) as proxy:
        url = settings.database_url().replace(f":{settings.database_port}/", f":{proxy.port}/")
        engine = session.connect_engine(url, "test", timeout_ms=400)
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
            assert proxy.fall_silent() == 1
            too_late = threading.Timer(10, proxy.reset)  # a wait in libpq is deaf to Python's signals
            too_late.start()
            with pytest.raises((DBAPIError, psycopg2.Error)) as raised:
                wait(connection)
            assert not too_late.finished.is_set(), "it waited until the proxy ended the connection"
            too_late.cancel()
            assert session.is_outage(raised.value)
            connection.invalidate()
        with engine.connect() as connection:
            assert connection.execute(text("SELECT 1")).scalar_one() == 1
        engine.dispose()


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_statement_that_takes_too_long_is_canceled_and_its_session_kept(
    settings: Settings, database: Engine, autocommit: bool
) -> None:
    engine = session.connect_engine(settings.database_url(), "test", timeout_ms=300, autocommit=autocommit)
    process = text("SELECT pg_backend_pid()")
    with engine.connect() as connection:
        before = connection.execute(process).scalar_one()
        with pytest.raises(DBAPIError) as raised:
            connection.execute(text("SELECT pg_sleep(60)"))
        assert session.was_canceled(raised.value)
        assert session.is_outage(raised.value), "to be tried again"
        connection.rollback()
        assert connection.execute(process).scalar_one() == before
    engine.dispose()


@pytest.mark.parametrize("trusted_seconds", [0.0, 60.0])
def test_a_connection_that_ended_in_the_pool(settings: Settings, database: Engine, trusted_seconds: float) -> None:
    engine = session.connect_engine(settings.database_url(), "test", trusted_seconds=trusted_seconds)
    with engine.connect() as connection:
        process = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
    with database.connect() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:process, 5000)"), {"process": process})
    if trusted_seconds:
        with pytest.raises(DBAPIError) as raised, engine.connect() as connection:
            connection.execute(text("SELECT 1"))
        assert session.is_outage(raised.value), "to be tried again"
    with engine.connect() as connection:
        assert connection.execute(text("SELECT 1")).scalar_one() == 1
    engine.dispose()


@pytest.mark.timeout(240)
def test_with_a_database_that_takes_five_seconds_for_each_answer(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    with Surrounded(settings, database, start) as pipeline:
        pipeline.database.delay = 5.0
        pipeline.send("slowly")
        pipeline.assert_answered()
        pipeline.database.delay = 0.0
        pipeline.wait_until_embedded("slowly", 60)
        eventually(pipeline.all_well, 30)
