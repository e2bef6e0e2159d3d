"""Making clients of kafka-python, for the packages that each have their own and do not import each other."""

import socket
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.errors import KafkaConnectionError
from kafka.net.compat import KafkaNetClient

from settings import Settings, kafka_address

Client = TypeVar("Client")

LISTENS_SECONDS = 1.0


def connect(client: Callable[..., Client], settings: Settings, **options: Any) -> Client:
    """A client with the addresses and the security of the settings. Raises KafkaError, at once where nobody listens.

    It has no topic created in passing, which would have the broker's defaults instead of what bridge.topics gives it:
    kafka-python 3.0 takes `allow_auto_create_topics` and loses it (net/manager.py makes a ClusterMetadata without). And
    one whose first connection fails leaves neither sockets nor a thread behind, as it would by itself: each try during
    an outage would cost a long-lived process one more.
    """
    if not any(listens(server) for server in settings.kafka_servers):
        raise KafkaConnectionError(f"nobody listens at {', '.join(settings.kafka_servers)}")
    made: list[KafkaNetClient] = []

    def remember(**configuration: Any) -> KafkaNetClient:
        made.append(KafkaNetClient(**configuration))
        made[-1].cluster.config["allow_auto_create_topics"] = False
        return made[-1]

    try:
        return client(**settings.kafka_client(), **options, kafka_client=remember)
    except BaseException:
        for each in made:
            each.close()
        raise


def listens(server: str) -> bool:
    """Whether anybody takes a connection at host:port; much cheaper than a client."""
    try:
        with socket.create_connection(kafka_address(server), timeout=LISTENS_SECONDS):
            return True
    except OSError:
        return False
