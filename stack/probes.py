"""Quick questions to servers, answered within seconds: whether one answers, which returns None or why not. What they
know of the pipeline is asked in pipeline_state.

Nothing here knows how the servers are run; they may be local or somebody else's.
"""

import contextlib
import http.client
import select
import socket
import time
from typing import Any
from urllib.parse import urlsplit

from settings import Settings, kafka_address
from stack.part import Lasting
from task_names import QUEUES

_SECONDS = 2.0
# To log in to PostgreSQL: libpq may have several addresses to try.
_LOGIN_SECONDS = 5.0
# For Kafka to name its brokers, also over TLS and from far away. The client's own limit is 30.
_KAFKA_SECONDS = 10.0


def tcp(host: str, port: int) -> str | None:
    try:
        socket.create_connection((host, port), timeout=_SECONDS).close()
    except OSError as error:
        return f"{host}:{port} does not answer ({error.strerror or error})"
    return None


def http_ok(host: str, port: int, path: str) -> str | None:
    """Asks for a page and expects 200. Goes around any proxy: the address is on this machine."""
    connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read(300).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return f"http://{host}:{port}{path} does not answer ({error})"
    finally:
        connection.close()
    return None if response.status == 200 else f"http://{host}:{port}{path} answers {response.status}: {body}"


def kafka(settings: Settings) -> str | None:
    """Asks the cluster for its metadata, with the security settings that every client uses."""
    from kafka.errors import KafkaError

    reasons = [tcp(host, port) for host, port in map(kafka_address, settings.kafka_servers)]
    if all(reason is not None for reason in reasons):
        return reasons[0] if reasons else "KAFKA_BOOTSTRAP_SERVERS names no server"
    try:
        admin = kafka_admin(settings)
    except (KafkaError, OSError, ValueError) as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {one_line(error)}"
    try:
        if not admin.describe_cluster().get("brokers"):
            return "Kafka has no broker yet"
    except KafkaError as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {one_line(error)}"
    finally:
        admin.close()
    return None


def kafka_admin(settings: Settings) -> Any:
    """Raises KafkaError, and leaves nothing behind then: whoever waits for Kafka asks again and again."""
    from kafka import KafkaAdminClient

    import kafka_clients

    limits = {"request_timeout_ms": 5000, "bootstrap_timeout_ms": _KAFKA_SECONDS * 1000}
    return kafka_clients.connect(KafkaAdminClient, settings, **limits)


OTHER_PASSWORD = (
    "; the data keep the DATABASE_PASSWORD with which they were made: set that one, or change it by psql's \\password"
)


def database(settings: Settings, *, create: bool = False) -> str | None:
    """Logs in and asks `SELECT 1`; with `create`, a database that is missing is created on the way."""
    import psycopg2

    try:
        ask_postgres(settings, settings.database_name, "SELECT 1")
    except psycopg2.Error as error:
        if not create or not _is_missing(settings):
            problem = f"PostgreSQL at {settings.database_address}:{settings.database_port}: {one_line(error)}"
            is_ours = not settings.database_host
            if is_ours and "password authentication failed" in problem:
                return Lasting(problem + OTHER_PASSWORD)
            return problem
        return _create_database(settings)
    return None


def ask_postgres(settings: Settings, database: str, statement: Any, seconds: float = 5.0) -> Any:
    """What a statement returns in its first row, if any, asked outside of any transaction. Raises psycopg2.Error, also
    if there is no answer.

    The connection is asynchronous, because libpq would wait for ever for a server that goes silent after the login:
    TCP sees nothing of that if a proxy or a paused machine goes on to acknowledge.
    """
    import psycopg2

    which: dict[str, Any] = {**settings.at_primary}
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        dbname=database,
        user=settings.database_user,
        password=settings.database_password,
        # No statement may go on working, or waiting for a lock, after its asker has given up.
        options=f"-c statement_timeout={seconds * 1000:.0f} -c lock_timeout={_SECONDS * 1000:.0f}",
        async_=True,
        **which,
    )
    with contextlib.closing(connection):
        _wait(connection, _LOGIN_SECONDS)
        with connection.cursor() as cursor:
            cursor.execute(statement)
            _wait(connection, seconds + _SECONDS)
            row = cursor.fetchone() if cursor.description else None
            return row[0] if row else None


def _wait(connection: Any, seconds: float) -> None:
    """Returns when the connection is made, or the answer to its question is there."""
    import psycopg2
    from psycopg2 import extensions

    deadline = time.monotonic() + seconds
    while (state := connection.poll()) != extensions.POLL_OK:
        poller = select.poll()
        poller.register(connection.fileno(), select.POLLIN if state == extensions.POLL_READ else select.POLLOUT)
        left = deadline - time.monotonic()
        if left <= 0 or not poller.poll(left * 1000):
            raise psycopg2.OperationalError(f"no answer within {seconds:g} s")


def _is_missing(settings: Settings) -> bool:
    """Whether the server has no such database. It is asked, because what it says of a login is in its own language."""
    import psycopg2
    from psycopg2 import sql

    statement = sql.SQL("SELECT 1 FROM pg_database WHERE datname = {}").format(sql.Literal(settings.database_name))
    try:
        return ask_postgres(settings, "postgres", statement) is None
    except psycopg2.Error:
        return False


def _create_database(settings: Settings) -> str | None:
    import psycopg2
    from psycopg2 import sql

    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(settings.database_name))
    try:
        ask_postgres(settings, "postgres", statement, seconds=30.0)  # it copies files, and a disk may be slow
    except psycopg2.Error as error:
        return f"cannot create the database {settings.database_name}: {one_line(error)}"
    return None


def redis(settings: Settings) -> str | None:
    import redis as client

    try:
        with contextlib.closing(redis_client(settings)) as connection:
            connection.ping()
            with contextlib.suppress(client.exceptions.NoPermissionError):
                connection.exists(*QUEUES)
    except (client.exceptions.ClusterCrossSlotError, client.exceptions.ClusterDownError) as error:
        refuses = f"a cluster, which refuses a command for several queues, as Celery's workers need it ({error})"
        return f"Redis at {without_password(settings.redis_address)} is {refuses}: name a single server"
    except (client.RedisError, ValueError, OSError) as error:
        return f"Redis at {without_password(settings.redis_address)}: {one_line(error)}"
    return None


def redis_client(settings: Settings) -> Any:
    import redis as client

    return client.Redis.from_url(settings.redis_address, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)


def one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@")
