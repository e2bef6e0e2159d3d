"""What tests of the running parts share: a producer, kafka_cli.py, and a model that can be held."""

from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

from settings import Settings
from tests.embedder_parts import Gate, a_gate
from tests.kafka_cli import Cli


@pytest.fixture
def producer(settings: Settings, topic: str) -> Iterator[KafkaProducer]:
    client = KafkaProducer(**settings.kafka_client(), acks="all", allow_auto_create_topics=False)
    yield client
    client.close(timeout=5)


@pytest.fixture
def cli(settings: Settings, topic: str) -> Cli:
    return Cli(settings)


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A provider behind HTTP; it is open."""
    with a_gate() as gate:
        yield gate
