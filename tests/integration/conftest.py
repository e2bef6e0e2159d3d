"""What tests of the running parts share: a producer, kafka_cli.py, and a model that can be held."""

from collections.abc import Iterator

import pytest
from kafka import KafkaProducer

import kafka_clients
from settings import Settings
from tests.embedder_parts import Gate, a_gate
from tests.kafka_cli import Cli


@pytest.fixture
def producer(settings: Settings, topic: str) -> Iterator[KafkaProducer]:
    client = kafka_clients.connect(KafkaProducer, settings, acks="all")
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
