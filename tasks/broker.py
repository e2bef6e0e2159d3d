"""A look at the queues, and what a broker that is away raises. Light: neither database nor model is imported."""

import redis
from kombu.exceptions import KombuError

from tasks.app import app

BROKER_ERRORS = (KombuError, redis.RedisError, OSError)


def queue_length(name: str) -> int:
    """How many tasks wait in a queue. Raises redis.RedisError."""
    client: redis.Redis = app.backend.client
    return int(client.llen(name))
