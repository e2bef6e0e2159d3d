"""Clients of Kafka that do not wait for ever: what the log (kafka_log) and the watch (kafka_watch) have in common."""

from collections.abc import Callable
from typing import Any

import kafka_clients
from kafka_clients import Client
from settings import Settings

BLOCK_MS = 2_000  # finding the brokers and the topic
REQUEST_MS = 2_000


def connect(client: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """A client of kafka-python. Raises KafkaError: at once if nobody listens, else after BLOCK_MS."""
    limits = {"bootstrap_timeout_ms": BLOCK_MS, "request_timeout_ms": REQUEST_MS}
    return kafka_clients.connect(client, settings, **limits, **options)
