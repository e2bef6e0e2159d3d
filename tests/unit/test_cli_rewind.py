"""What `kafka_cli.py rewind` does where Kafka still lists a bridge that has stopped."""

import pytest

from clients import steering
from settings import Settings


class NobodyAnswers:
    """A Redis in which no bridge takes up a wish."""

    def __init__(self) -> None:
        self.wishes: dict[str, str] = {}

    def hset(self, _key: str, name: str, value: str) -> None:
        self.wishes[name] = value

    def hgetall(self, _key: str) -> dict[str, str]:
        return dict(self.wishes)

    def hdel(self, _key: str, *names: str) -> None:
        for name in names:
            self.wishes.pop(name, None)

    def close(self) -> None:
        """Nothing to close."""


def test_the_offsets_are_set_in_kafka_once_the_session_of_a_stopped_bridge_has_run_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listed = iter([True, True, False])
    broker, set_there = NobodyAnswers(), list[dict[int, int]]()
    monkeypatch.setattr(steering, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(steering, "connect", lambda _settings: broker)
    monkeypatch.setattr(steering, "is_running", lambda _settings, _admin: next(listed))
    monkeypatch.setattr(steering, "set_in_kafka", lambda _settings, _admin, offsets: set_there.append(offsets))
    steering.rewind(Settings(), None, {0: 5, 1: 7})
    assert set_there == [{0: 5, 1: 7}]
    assert broker.wishes == {}
