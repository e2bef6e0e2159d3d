"""A look at the queues, and what a broker that is away raises. Light: neither database nor model is imported."""

import redis
from kombu.exceptions import KombuError

from tasks.app import app

BROKER_ERRORS = (KombuError, redis.RedisError, OSError, RuntimeError)  # Celery's "Retry limit exceeded" is the last


# Of Celery's priorities on Redis, 0 first to 9 last: each is a list of its own beside the queue's.
BULK_PRIORITY = 9


def queue_length(name: str, priority: int = 0) -> int:
    """How many tasks of a priority wait in a queue. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    return int(client.llen(f"{name}\x06\x16{priority}" if priority else name))
