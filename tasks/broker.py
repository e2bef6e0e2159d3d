"""A look at the queues, and what a broker that is away raises. Light: neither database nor model is imported."""

import redis
from kombu.exceptions import KombuError

from tasks.app import app

BROKER_ERRORS = (KombuError, redis.RedisError, OSError, RuntimeError)  # Celery's "Retry limit exceeded" is the last


# Of Celery's priorities on Redis, 0 first to 9 last: each is a list of its own beside the queue's.
BULK_PRIORITY = 9


def queue_length(name: str, *priorities: int) -> int:
    """How many tasks of these priorities, or of 0, wait in a queue. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    names = [f"{name}\x06\x16{priority}" if priority else name for priority in priorities or (0,)]
    if len(names) == 1:
        return int(client.llen(names[0]))
    with client.pipeline(transaction=False) as together:
        for each in names:
            together.llen(each)
        return sum(together.execute())
