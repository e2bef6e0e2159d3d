"""Clients of Kafka that do not wait for ever: what the log (kafka_log) and the watch (kafka_watch) have in common."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient

from settings import Settings

Client = TypeVar("Client")

BLOCK_MS = 2_000  # finding the brokers and the topic
REQUEST_MS = 2_000


def connect(client: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """A client of kafka-python. Raises KafkaError: at once where nobody listens, else after BLOCK_MS.

    One whose first connection fails leaves neither sockets nor threads behind.
    """
    if not any(listens(server) for server in settings.kafka_servers):
        raise KafkaConnectionError(f"nobody listens at {', '.join(settings.kafka_servers)}")
    limits = {"bootstrap_timeout_ms": BLOCK_MS, "request_timeout_ms": REQUEST_MS}
    made: list[KafkaNetClient] = []

    def remember(**configuration: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configuration))
        return made[-1]

    try:
        return client(**settings.kafka_client(), **limits, **options, kafka_client=remember)
    except BaseException:
        for each in made:
            each.close()
        raise


def listens(server: str) -> bool:
    """Whether anybody takes a connection at host:port; much cheaper than a client."""
    host, _, port = server.rpartition(":")
    if not port.isdigit():
        return True  # no port given: kafka-python knows the default
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except OSError:
        return False
