"""What Kafka, Redis and PostgreSQL know of the pipeline: whether its processes are there and have work, and whether it
is paused or held up. Quick questions, answered within seconds.

Nothing here knows how the servers or the processes are run; they may be local or somebody else's.
"""

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from redis_keys import PAUSED, PROCESSES, REFUSED, process_member, steering_key, task_lists
from settings import Settings
from stack import probes

Answer = TypeVar("Answer")

# A process says that it is there once a second.
_HEARD_SECONDS = 5.0


def bridge_members(settings: Settings) -> str | None:
    """Expects as many members in the consumer group as there are bridges, and the topic's partitions among them."""
    from kafka.errors import KafkaError

    try:
        admin = probes.kafka_admin(settings)
    except (KafkaError, OSError, ValueError) as error:
        return f"Kafka at {','.join(settings.kafka_servers)}: {probes.one_line(error)}"
    try:
        groups = admin.describe_groups([settings.kafka_group_id])
    except KafkaError as error:
        return probes.one_line(error)
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


def celery_node(settings: Settings, name: str, ending: str) -> str | None:
    """Pings the node `name@this host`, with that ending, through the broker."""
    app = _celery(settings.redis_address)
    from kombu.exceptions import OperationalError
    from redis import RedisError

    node = f"{name}@{socket.gethostname()}{ending}"
    try:
        answers = app.control.ping(destination=[node], timeout=1.0)
    except (OperationalError, RedisError, OSError) as error:
        return f"the broker does not answer ({probes.one_line(error)})"
    return None if answers else f"{node} does not answer a ping"


def _celery(broker: str) -> Any:
    """A Celery application that knows no task. One for all pings: each has a queue for answers in the broker."""
    with _celery_lock:  # celery and kombu cannot be imported by two threads at once
        if broker not in _celery_apps:
            from celery import Celery

            _celery_apps[broker] = Celery("probe", broker=broker, set_as_current=False)
        return _celery_apps[broker]


_celery_apps: dict[str, Any] = {}
_celery_lock = threading.Lock()


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
            probes.ask_postgres(
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
        with contextlib.closing(probes.redis_client(settings)) as connection:
            return ask(connection)
    except (client.RedisError, ValueError, OSError):
        return None
