"""A bridge that Redis cannot tell whether it is paused says so, once, and when Redis is back."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import redis

from bridge import steering
from bridge.steering import Steering
from redis_keys import PAUSED


class Redis:
    """Answers with the wishes, where it is there."""

    def __init__(self) -> None:
        self.away = False
        self.wishes: dict[bytes, bytes] = {}

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        if self.away:
            raise redis.ConnectionError("no answer")
        return self.wishes


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Looks once, so many seconds later, and returns what was logged."""
    now = 100.0
    monkeypatch.setattr(steering, "time", SimpleNamespace(monotonic=lambda: now))
    caplog.set_level("INFO")

    def look_at(asked: Steering, *, later: float = steering.LOOK_SECONDS) -> list[str]:
        nonlocal now
        now += later
        caplog.clear()
        asked.look()
        return caplog.messages

    return look_at


@pytest.fixture
def server() -> Redis:
    return Redis()


@pytest.fixture
def asked(server: Redis) -> Steering:
    positions: Any = SimpleNamespace(consumer=SimpleNamespace(assignment=set))
    return Steering(server, "group", positions)  # type: ignore[arg-type]


def test_a_bridge_that_cannot_be_told_whether_it_is_paused_says_so_once(
    look: Callable[..., list[str]], server: Redis, asked: Steering
) -> None:
    server.away = True
    assert look(asked) == ["Redis cannot be asked for a pause or a rewind, the intake waits for the answer: no answer"]
    assert [look(asked) for _ in range(20)] == [[]] * 20
    assert not asked.paused


def test_it_says_when_redis_is_back_for_good(look: Callable[..., list[str]], server: Redis, asked: Steering) -> None:
    server.wishes = {PAUSED.encode(): b"a pause"}
    assert look(asked) == ["intake paused by command"]
    server.away = True
    assert look(asked) == ["Redis cannot be asked for a pause or a rewind, the intake stays paused: no answer"]
    server.away = False
    assert look(asked) == []
    server.away = True
    assert look(asked) == [], "it comes and goes"
    server.away = False
    assert look(asked, later=steering.BACK_SECONDS + 1) == ["Redis can be asked for a pause or a rewind again"]
    server.away = True
    assert len(look(asked)) == 1
