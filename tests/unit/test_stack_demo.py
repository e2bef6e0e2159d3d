"""The text that a start sends."""

from types import SimpleNamespace

import pytest
from kafka.errors import KafkaTimeoutError

from settings import Settings
from stack import StackError, demo


def test_a_kafka_that_does_not_answer_is_told_in_one_line() -> None:
    with pytest.raises(StackError, match="Kafka did not take the demo message"):
        demo._publish_and_find(Settings(kafka_port=1), "a text", "a query")


def test_a_record_that_kafka_never_takes_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer that gets no id, as where the controllers are away, keeps its records for ever."""

    def get(timeout: float | None = None) -> None:
        assert timeout, "it would wait for ever"
        raise KafkaTimeoutError(f"after {timeout} s")

    def close(timeout: float | None = None) -> None:
        assert timeout, "it would wait for ever"
        raise KafkaTimeoutError("records are left")

    producer = SimpleNamespace(partitions_for=set, send=lambda *_, **__: SimpleNamespace(get=get), close=close)
    producer._sender = SimpleNamespace(force_close=lambda: None)
    monkeypatch.setattr("kafka_clients.connect", lambda *_, **__: producer)
    with pytest.raises(StackError, match="Kafka did not take the demo message: KafkaTimeoutError: after 10"):
        demo._publish_and_find(Settings(), "a text", "a query")
