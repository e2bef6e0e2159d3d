"""A real worker and the signals of its operator: a cold stop in the middle of a task, and SIGHUP."""

import signal
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Engine

from settings import Settings
from tests.embedder_parts import KEY, Gate
from tests.parts import Running, eventually, send_task
from tests.samples import a_record, ask, embedded, persist

JOBS = "SELECT attempts, lease IS NOT NULL AS leased, available_at <= clock_timestamp() AS due FROM embedding_jobs"
FAILURES = "SELECT * FROM embedding_failures"

Start = Callable[..., Running]


@pytest.mark.parametrize("signals", [[signal.SIGQUIT], [signal.SIGINT, signal.SIGINT]], ids=["SIGQUIT", "Ctrl-C twice"])
def test_a_cold_stop_ends_the_worker_at_once_and_its_task_is_nobodys_fault(
    settings: Settings, database: Engine, start: Start, gate: Gate, signals: Sequence[signal.Signals]
) -> None:
    worker = start(
        "embed-worker",
        embedding_provider="openai",
        openai_base_url=gate.url,
        openai_api_key=KEY,
        openai_timeout_seconds=60.0,
    )
    persist(database, a_record("one"))
    (job,) = ask(database, "SELECT id FROM embedding_jobs")
    gate.open.clear()
    send_task(settings, "tasks.embed_text", [job["id"]])
    eventually(lambda: gate.has("one"), timeout=30)
    assert ask(database, JOBS) == [{"attempts": 1, "leased": True, "due": False}]
    for number in signals:
        said = worker.log.read_text().count("Ctrl+C")
        worker.signal(number)
        eventually(lambda said=said: worker.log.read_text().count("Ctrl+C") > said)  # type: ignore[misc]
    eventually(lambda: not worker.alive)
    assert "Soft Shutdown" not in worker.log.read_text()  # Celery would sleep in it
    assert ask(database, JOBS) == [{"attempts": 0, "leased": False, "due": True}]
    assert ask(database, FAILURES) == []
    assert "Traceback" not in worker.log.read_text()


def test_a_hang_up_ends_the_worker_when_its_task_is_done(
    settings: Settings, database: Engine, start: Start, gate: Gate
) -> None:
    worker = start("embed-worker", embedding_provider="openai", openai_base_url=gate.url, openai_api_key=KEY)
    record = a_record("one")
    persist(database, record)
    (job,) = ask(database, "SELECT id FROM embedding_jobs")
    gate.open.clear()
    send_task(settings, "tasks.embed_text", [job["id"]])
    eventually(lambda: gate.has("one"), timeout=30)
    worker.signal(signal.SIGHUP)
    eventually(lambda: "worker: Warm shutdown" in worker.log.read_text())
    gate.open.set()
    eventually(lambda: not worker.alive)
    worker.stop()
    assert worker.process.returncode == 0
    assert embedded(database) == {record.id}


def test_a_worker_under_nohup_outlives_a_hang_up(settings: Settings, start: Start) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits that
    try:
        worker = start("persist-worker")
    finally:
        signal.signal(signal.SIGHUP, before)
    worker.signal(signal.SIGHUP)
    worker.signal(signal.SIGUSR1)  # Celery writes down what its threads do: the signals are delivered by then
    eventually(lambda: "MainThread" in worker.log.read_text())
    assert worker.alive
    assert "shutdown" not in worker.log.read_text()
