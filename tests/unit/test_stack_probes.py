"""What asks whether Kafka is there: it says why not, and leaves nothing behind."""

import socket
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from settings import Settings
from stack import pipeline_state, probes


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("probe", [probes.kafka, pipeline_state.bridge_members])
def test_a_kafka_that_does_not_answer_costs_no_thread(
    probe: Callable[[Settings], str | None], silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_KAFKA_SECONDS", 0.2)
    before = set(threading.enumerate())
    for _ in range(2):
        assert (probe(Settings(kafka_port=silent_port)) or "").startswith(f"Kafka at 127.0.0.1:{silent_port}: ")
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]


@pytest.mark.parametrize("ask", [pipeline_state.intake_paused, pipeline_state.refused])
def test_what_redis_holds_is_not_known_to_a_python_without_its_client(
    ask: Callable[[Settings], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    assert ask(Settings()) is None
