"""A worker that was asked to end and is held up ends all the same, but for a task in its hand, and stands still for
nothing that can wait."""

import os
import threading
from types import SimpleNamespace
from typing import Any

import pytest
from celery import signals
from celery.concurrency import prefork, solo
from celery.exceptions import WorkerShutdown
from celery.worker import heartbeat, state

from tasks import consumer, ending
from tasks.app import app
from tests.parts import eventually


@pytest.fixture
def in_hand(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    tasks: list[Any] = []
    monkeypatch.setattr(state, "active_requests", tasks)
    monkeypatch.setattr(ending, "TURN_SECONDS", 0.005)
    return tasks


def test_it_is_ended_once_it_has_had_no_task_for_a_while(
    in_hand: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    step = ending.Ending(SimpleNamespace())
    step.start(SimpleNamespace(pool_cls=solo.TaskPool))
    try:
        in_hand.append("a task")
        (thread,) = [each for each in threading.enumerate() if each.name == "ending"]
        thread.join(0.1)
        signals.worker_shutting_down.send(sender="a worker", sig="SIGTERM", how="Warm", exitcode=0)
        thread.join(0.2)
        assert ended == []
        in_hand.clear()
        eventually(lambda: ended == [0])
        assert "held up" in caplog.text
    finally:
        signals.worker_shutting_down.disconnect(step.ask)


def test_a_task_that_an_error_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal came while the worker stored its result."""

    def end(_self: object) -> None:
        raise WorkerShutdown(0)

    monkeypatch.setattr("celery.worker.consumer.Consumer.start", end)
    request = type("Request", (), {"id": "ended"})()  # Celery refers to it weakly
    ended = consumer.Consumer.__new__(consumer.Consumer)
    ended.pool = object.__new__(solo.TaskPool)
    state.active_requests.add(request)
    with pytest.raises(WorkerShutdown):
        ended.start()
    assert request not in state.active_requests


def test_children_are_not_left_behind() -> None:
    ending.Ending(SimpleNamespace()).start(SimpleNamespace(pool_cls=prefork.TaskPool))
    assert not [each for each in threading.enumerate() if each.name == "ending"]


def test_workers_are_set_up_for_it() -> None:
    assert "tasks.ending:Ending" in app.steps["worker"]


def test_the_word_that_a_worker_lives_is_tried_once() -> None:
    """Celery's own tries for ever, in the loop that takes the signals."""
    tried: list[bool] = []
    dispatcher = consumer.Dispatcher(app.connection_for_write("memory://"), app=app)
    dispatcher.producer.publish = lambda *_, retry, **__: tried.append(retry)
    heart = heartbeat.Heart(SimpleNamespace(call_repeatedly=lambda *_: None), dispatcher)
    heart.start()
    assert tried == [False]


@pytest.mark.parametrize(("asked", "tries"), [(None, 3), (0, 1)], ids=["works", "is to end"])
def test_a_result_is_stored_again_and_again_but_by_a_worker_that_is_to_end(
    monkeypatch: pytest.MonkeyPatch, asked: int | None, tries: int
) -> None:
    tried: list[str] = []

    def silent(key: str, *_: object, **__: object) -> None:
        tried.append(key)
        raise TimeoutError

    monkeypatch.setattr(state, "should_stop", asked)
    monkeypatch.setattr(app.backend, "client", SimpleNamespace(set=silent))
    with pytest.raises(TimeoutError):
        app.backend.set("key", "value", max_retries=2, interval_max=0)
    assert len(tried) == tries
