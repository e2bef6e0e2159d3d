"""Quick questions to servers, answered within seconds: whether one answers, which returns None or why not; and what it
knows of the pipeline.

Nothing here knows how the servers are run; they may be local or somebody else's.
"""

import contextlib
import http.client
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

from redis_keys import PAUSED, PROCESSES, REFUSED, process_member, steering_key, task_lists
from settings import Settings, kafka_address
from stack.part import Lasting
from task_names import QUEUES

Answer = TypeVar("Answer")

_SECONDS = 2.0
# To log in to PostgreSQL: libpq may have several addresses to try.
_LOGIN_SECONDS = 5.0
# For Kafka to name its brokers, also over TLS and from far away. The client's own limit is 30.
_KAFKA_SECONDS = 10.0
# A process says that it is there once a second.
_HEARD_SECONDS = 5.0


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
        admin = _kafka_admin(settings)
    except (KafkaError, OSError, ValueError) as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {_one_line(error)}"
    try:
        if not admin.describe_cluster().get("brokers"):
            return "Kafka has no broker yet"
    except KafkaError as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {_one_line(error)}"
    finally:
        admin.close()
    return None


def _kafka_admin(settings: Settings) -> Any:
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
        _ask(settings, settings.database_name, "SELECT 1")
    except psycopg2.Error as error:
        if not create or not _is_missing(settings):
            problem = f"PostgreSQL at {settings.database_address}:{settings.database_port}: {_one_line(error)}"
            is_ours = not settings.database_host
            if is_ours and "password authentication failed" in problem:
                return Lasting(problem + OTHER_PASSWORD)
            return problem
        return _create_database(settings)
    return None


def _ask(settings: Settings, database: str, statement: Any, seconds: float = 5.0) -> Any:
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
        return _ask(settings, "postgres", statement) is None
    except psycopg2.Error:
        return False


def _create_database(settings: Settings) -> str | None:
    import psycopg2
    from psycopg2 import sql

    statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(settings.database_name))
    try:
        _ask(settings, "postgres", statement, seconds=30.0)  # it copies files, and a disk may be slow
    except psycopg2.Error as error:
        return f"cannot create the database {settings.database_name}: {_one_line(error)}"
    return None


def redis(settings: Settings) -> str | None:
    import redis as client

    try:
        with contextlib.closing(_redis(settings)) as connection:
            connection.ping()
            with contextlib.suppress(client.exceptions.NoPermissionError):
                connection.exists(*QUEUES)
    except (client.exceptions.ClusterCrossSlotError, client.exceptions.ClusterDownError) as error:
        refuses = f"a cluster, which refuses a command for several queues, as Celery's workers need it ({error})"
        return f"Redis at {without_password(settings.redis_address)} is {refuses}: name a single server"
    except (client.RedisError, ValueError, OSError) as error:
        return f"Redis at {without_password(settings.redis_address)}: {_one_line(error)}"
    return None


def celery_node(settings: Settings, name: str, ending: str) -> str | None:
    """Pings the node `name@this host`, with that ending, through the broker."""
    app = _celery(settings.redis_address)
    from kombu.exceptions import OperationalError
    from redis import RedisError

    node = f"{name}@{socket.gethostname()}{ending}"
    try:
        answers = app.control.ping(destination=[node], timeout=1.0)
    except (OperationalError, RedisError, OSError) as error:
        return f"the broker does not answer ({_one_line(error)})"
    return None if answers else f"{node} does not answer a ping"


def heard_of(settings: Settings, part: str, pid: int) -> bool:
    """Whether a process of the pipeline has shown within the last seconds that it is there; a busy worker does too."""

    def is_there(connection: Any) -> bool:
        said = connection.zscore(PROCESSES, process_member(part, socket.gethostname(), pid))
        return said is not None and abs(connection.time()[0] - said) < _HEARD_SECONDS

    return bool(_in_redis(settings, is_there))


def intake_paused(settings: Settings) -> bool | None:
    """Whether somebody has paused the bridges; None if that cannot be known."""
    key = steering_key(settings.kafka_group_id)
    return _in_redis(settings, lambda connection: bool(connection.hget(key, PAUSED)))


def refused(settings: Settings) -> str | None:
    """What PostgreSQL says to the workers where it stores nothing for them; None also where that cannot be known."""
    said = _in_redis(settings, lambda connection: connection.get(REFUSED))
    return None if said is None else said.decode(errors="replace")


def queue_length(settings: Settings, queue: str) -> int | None:
    """How many tasks wait in a queue, of all of Celery's priorities; None where Redis is away."""
    return _in_redis(settings, lambda connection: sum(int(connection.llen(name)) for name in task_lists(queue)))


def texts_pending(settings: Settings) -> int | None:
    """How many messages wait for their vector, except for a second model's (db.queries.PENDING); None if PostgreSQL is
    away."""
    import psycopg2

    try:
        return int(
            _ask(
                settings,
                settings.database_name,
                "SELECT coalesce(sum(cardinality(message_ids)), 0)::bigint FROM embedding_jobs"
                " WHERE NOT deleted AND model IS NULL",
            )
        )
    except psycopg2.Error:
        return None


def _in_redis(settings: Settings, ask: Callable[[Any], Answer]) -> Answer | None:
    """What Redis answers; None if it cannot be asked."""
    try:
        import redis as client
    except ImportError:  # nothing is installed yet
        return None
    try:
        with contextlib.closing(_redis(settings)) as connection:
            return ask(connection)
    except (client.RedisError, ValueError, OSError):
        return None


def _redis(settings: Settings) -> Any:
    import redis as client

    return client.Redis.from_url(settings.redis_address, socket_timeout=_SECONDS, socket_connect_timeout=_SECONDS)


def _celery(broker: str) -> Any:
    """A Celery application that knows no task. One for all pings: each has a queue for answers in the broker."""
    with _celery_lock:  # celery and kombu cannot be imported by two threads at once
        if broker not in _celery_apps:
            from celery import Celery

            _celery_apps[broker] = Celery("probe", broker=broker, set_as_current=False)
        return _celery_apps[broker]


_celery_apps: dict[str, Any] = {}
_celery_lock = threading.Lock()


def bridge_members(settings: Settings) -> str | None:
    """Expects as many members in the consumer group as there are bridges, and the topic's partitions among them."""
    from kafka.errors import KafkaError

    try:
        admin = _kafka_admin(settings)
    except (KafkaError, OSError, ValueError) as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {_one_line(error)}"
    try:
        groups = admin.describe_groups([settings.kafka_group_id])
    except KafkaError as error:
        return _one_line(error)
    finally:
        admin.close()
    group = groups[settings.kafka_group_id]
    state, members = group["group_state"], group["members"]
    if state != "Stable" or len(members) < settings.bridges:
        return f"the consumer group {settings.kafka_group_id} is {state} with {len(members)} members"
    assigned = [topic for member in members for topic in member["member_assignment"]["assigned_partitions"]]
    if not any(topic["topic"] == settings.kafka_topic and topic["partitions"] for topic in assigned):
        return f"no bridge in the consumer group {settings.kafka_group_id} was given a partition"
    return None


def _one_line(error: BaseException) -> str:
    text = str(error).strip() or type(error).__name__
    return " ".join(text.split())


def without_password(url: str) -> str:
    parts = urlsplit(url)
    return url if parts.password is None else url.replace(f":{parts.password}@", ":***@")
