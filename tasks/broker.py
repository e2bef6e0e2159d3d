"""A look at the queues, and what a broker that is away raises. Light: neither database nor model is imported."""

import redis
from kombu.exceptions import KombuError

from redis_keys import task_list, task_lists
from tasks.app import app

BROKER_ERRORS = (KombuError, redis.RedisError, OSError)

# For kombu's ensure_connection, in seconds. Its own pauses would grow to half a minute, and keep a worker or beat away
# that much longer than the broker.
RECONNECTING = {"interval_start": 1, "interval_step": 1, "interval_max": 3}

BULK_PRIORITY = 9  # the last to be served, for work that came in bulk


def said_of(queue: str, error: Exception) -> str:
    """Redis's error about a queue, with the key's name if the key holds no list: then another program uses it."""
    return f"the key {task_list(queue)!r}: {error}" if "WRONGTYPE" in str(error) else str(error)


def queue_length(queue: str) -> int:
    """How many tasks wait in a queue, of all priorities, asked in one round trip. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    with client.pipeline(transaction=False) as together:
        for name in task_lists(queue):
            together.llen(name)
        return sum(together.execute())


def length_at_priority(queue: str, priority: int) -> int:
    """How many tasks of one priority wait in a queue; a task has 0, the first to be served, unless its sender says
    otherwise. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    return int(client.llen(task_list(queue, priority)))
