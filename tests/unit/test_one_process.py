"""Whatever pool a worker has, each process that does its tasks is told once of its start."""

from types import SimpleNamespace

import pytest
from celery import concurrency, signals

from tasks.app import app
from tasks.one_process import OneProcess


@pytest.mark.parametrize("name", ["threads", "solo"])
def test_a_worker_without_children_is_told_of_its_start_once(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(signals.worker_process_init, "send", lambda sender: told.append(sender))
    worker = SimpleNamespace(pool_cls=concurrency.get_implementation(name), hostname="embed@here", steps=[])
    worker.pool_cls(1, initargs=(app, worker.hostname))
    step = OneProcess(worker)
    if step.include_if(worker):
        step.start(worker)
    assert told == [worker.hostname]


def test_the_children_of_another_are_told_by_celery() -> None:
    worker = SimpleNamespace(pool_cls=concurrency.get_implementation("prefork"), steps=[])
    assert not OneProcess(worker).include_if(worker)


def test_workers_are_set_up_for_it() -> None:
    assert "tasks.one_process:OneProcess" in app.steps["worker"]
