"""Workers of two databases on one Redis: the second one takes no task, and says why."""

import itertools
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from celery.exceptions import WorkerShutdown
from celery.worker import state

from redis_keys import DATABASE
from tasks import installation
from tasks.installation import Installation, other_at_work
from telemetry import numbers_store


class Redis:
    """Keeps one value; how long it is to stay there counts for nothing."""

    def __init__(self, value: str | None = None) -> None:
        self.value = value
        self.away = False

    def get(self, key: str) -> str | None:
        assert key == DATABASE
        if self.away:
            raise redis.ConnectionError
        return self.value

    def set(self, _key: str, value: str, *, ex: int, nx: bool = False) -> None:
        if self.away:
            raise redis.ConnectionError
        if self.value is None or not nx:
            self.value = value

    def expire(self, _key: str, _seconds: int) -> None:
        assert self.value is not None


@pytest.fixture
def killed() -> list[int]:
    """The signals that a worker has sent itself."""
    return []


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch, killed: list[int]) -> Installation:
    monkeypatch.setattr(numbers_store, "connect", lambda _address: Redis())
    monkeypatch.setattr(installation, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(installation, "database_name", lambda: "1/texts")
    monkeypatch.setattr(os, "kill", lambda _pid, sent: killed.append(sent))
    return Installation(None)


def test_the_first_one_has_it_and_workers_of_its_database_share_it() -> None:
    server: Any = Redis()
    assert [other_at_work(server, name) for name in ("1/a", "1/a", "2/a", "1/b")] == [None, None, "1/a", "1/a"]


def test_a_worker_of_another_database_ends_before_its_first_task(
    step: Installation, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step.client = Redis("2/staging")  # type: ignore[assignment]
    clock = itertools.count(step=7.0)
    monkeypatch.setattr(installation, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(step.ended, "wait", lambda _seconds: False)
    with pytest.raises(SystemExit):
        step.start(None)
    assert "another installation, with the database staging" in caplog.text
    assert "REDIS_URL" in caplog.text


def test_it_begins_once_the_other_one_is_gone(step: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    server: Any = Redis("2/staging")
    step.client = server

    def wait(_seconds: float) -> bool:
        server.value = None
        return False

    monkeypatch.setattr(step.ended, "wait", wait)
    monkeypatch.setattr(step, "watch", lambda: None)
    step.start(None)
    assert server.value == "1/texts"


@pytest.mark.parametrize("away", ["redis", "postgresql"])
def test_nobody_waits_for_a_server_that_is_away(step: Installation, monkeypatch: pytest.MonkeyPatch, away: str) -> None:
    server: Any = Redis("2/staging")
    server.away = away == "redis"
    step.client = server
    if away == "postgresql":
        monkeypatch.setattr(installation, "database_name", lambda: None)
    monkeypatch.setattr(step, "watch", lambda: None)
    step.start(None)


def test_one_that_could_not_ask_ends_when_it_learns_of_the_other(step: Installation, killed: list[int]) -> None:
    step.client = Redis("2/staging")  # type: ignore[assignment]
    step.watch()
    assert killed == [signal.SIGTERM]


def test_while_postgresql_is_away_nobody_is_taken_for_a_stranger(
    step: Installation, monkeypatch: pytest.MonkeyPatch, killed: list[int]
) -> None:
    """The database of the settings may have become the other one, and cannot tell."""
    step.client = Redis("2/texts")  # type: ignore[assignment]
    step.database = "1/texts"
    monkeypatch.setattr(installation, "database_name", lambda: None)
    waits = iter([False, False, True])
    monkeypatch.setattr(step.ended, "wait", lambda _seconds: next(waits))
    step.watch()
    assert killed == []


def test_a_worker_that_waits_ends_when_it_is_asked_to(step: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    step.client = Redis("2/staging")  # type: ignore[assignment]
    monkeypatch.setattr(state, "should_stop", 0)
    with pytest.raises(WorkerShutdown):
        step.start(None)


@pytest.mark.usefixtures("step")
def test_all_follow_a_database_that_was_restored_elsewhere(killed: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other learns its new name, and none takes the others for strangers."""
    server: Any = Redis("1/texts")
    first, second = Installation(None), Installation(None)
    first.client = second.client = server
    assert first.look() is second.look() is None
    monkeypatch.setattr(installation, "database_name", lambda: "2/texts")
    first.follow("2/texts")
    assert server.value == "2/texts"
    assert second.look() == "2/texts"
    waits = iter([False, True])
    monkeypatch.setattr(second.ended, "wait", lambda _seconds: next(waits))
    second.watch()
    assert killed == []
    assert second.database == "2/texts"
