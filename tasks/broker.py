"""A look at the queues, and what a broker that is away raises. Light: neither database nor model is imported."""

import redis
from kombu.exceptions import KombuError

from redis_keys import task_list
from tasks.app import app

BROKER_ERRORS = (KombuError, redis.RedisError, OSError)

# For kombu's ensure_connection, in seconds. Its own pauses would grow to half a minute, and a worker or beat be away so
# much longer than the broker.
RECONNECTING = {"interval_start": 1, "interval_step": 1, "interval_max": 3}

BULK_PRIORITY = 9  # the last to be served, for work that came in bulk


def said_of(queue: str, error: Exception) -> str:
    """What Redis says of a queue, with the name of its key where the key is none of a list: somebody else's then."""
    return f"the key {task_list(queue)!r}: {error}" if "WRONGTYPE" in str(error) else str(error)


def queue_length(name: str, *priorities: int) -> int:
    """How many tasks of these priorities, or of 0, wait in a queue. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    names = [task_list(name, priority) for priority in priorities or (0,)]
    if len(names) == 1:
        return int(client.llen(names[0]))
    with client.pipeline(transaction=False) as together:
        for each in names:
            together.llen(each)
        return sum(together.execute())
