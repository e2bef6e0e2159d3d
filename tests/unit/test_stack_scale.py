"""What is said of workers that have not ended: nobody knows whether they had a task in hand. And that no worker is left
stopped which is counted."""

import os
import signal
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from settings import MOST_WORKERS, InvalidSetting, Settings
from stack import kafka, leaving, lock, plan, record, scale, supervisor, system
from stack import start as starting
from stack.errors import StackError
from stack.part import Part
from stack.processes import identity
from stack.record import Record


class Told:
    """A supervisor that passes on nothing."""

    def __init__(self) -> None:
        self.signals: list[tuple[str, str]] = []

    def signal(self, name: str, signal: str) -> None:
        self.signals.append((name, signal))


@pytest.mark.parametrize("patience", [0, 0.2])
def test_a_worker_that_has_not_ended_in_time_is_not_said_to_work(
    patience: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data_dir=str(tmp_path))
    (tmp_path / "run").mkdir()
    process = identity(os.getpid())
    assert process is not None
    record.write(settings, "persist-worker-2", Record(process, signal.SIGTERM, 1, 0, 0.0))
    told = Told()
    monkeypatch.setattr(scale, "_talk", lambda _: told)
    with pytest.raises(StackError) as late:
        scale._wait_for_tasks(settings, ["persist-worker-2"], patience)
    assert str(late.value).startswith(f"persist-worker-2 did not end within {patience:g} s: ")
    assert "at work" not in str(late.value)
    assert "--timeout" in str(late.value)
    assert told.signals == [("persist-worker-2", "TERM")]


class Workers:
    """A supervisor of workers that end, and begin, at once. One that is stopped has sent its `blow` to this process."""

    def __init__(self, running: Iterable[str], blow: signal.Signals | None = None) -> None:
        self.at_work = set(running)
        self.blow = blow

    def states(self) -> dict[str, tuple[str, int]]:
        return {}

    def running(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name in self.at_work]

    def stopped(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.at_work]

    def signal(self, name: str, signal: str) -> None:
        pass

    def add(self, names: Iterable[str]) -> None:
        pass

    def start(self, names: Iterable[str]) -> None:
        self.at_work |= set(names)

    def stop(self, names: Iterable[str]) -> None:
        self.at_work -= set(names)
        if self.blow is not None:
            os.kill(os.getpid(), self.blow)

    def remove(self, names: Iterable[str]) -> None:
        pass


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Of a system that counts two embed workers."""
    monkeypatch.setattr(kafka, "java", lambda: "/usr/bin/java")
    monkeypatch.setattr(scale, "_LOCK_SECONDS", 0.2)
    monkeypatch.setattr(scale, "_STOP_SECONDS", 0.2)
    monkeypatch.setattr(Part, "wait_until_healthy", lambda *_: None)
    (tmp_path / "run").mkdir()
    found = Settings(data_dir=str(tmp_path), embed_workers=2)
    system.write(found, plan.parts(found), ready=True)
    return found


def embed_workers(settings: Settings) -> int:
    return scale.counts(scale.running(settings))["embed"]


def supervised(monkeypatch: pytest.MonkeyPatch, workers: Workers) -> Workers:
    monkeypatch.setattr(supervisor, "talk", lambda _: workers)
    return workers


def test_no_worker_is_stopped_while_a_start_or_stop_is_under_way(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = supervised(monkeypatch, Workers(["embed-worker", "embed-worker-2"]))
    monkeypatch.setattr(leaving, "is_waiting", lambda *_: True)
    held = lock.take(tmp_path / "lock", "not here")
    with pytest.raises(StackError, match="start or stop is under way"):
        scale.scale(settings, "embed", 1)
    held.release()
    assert workers.at_work == {"embed-worker", "embed-worker-2"}
    assert embed_workers(settings) == 2


def test_after_a_stop_that_was_killed_it_says_what_mends_that(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised(monkeypatch, Workers(["embed-worker", "embed-worker-2"]))
    system.write(settings, plan.parts(settings), ready=False)
    with pytest.raises(StackError, match=r"or \./start\.sh, where that was killed"):
        scale.scale(settings, "embed", 1)


@pytest.mark.parametrize("blow", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_worker_that_is_stopped_is_counted_no_more_whatever_signal_comes(
    blow: signal.Signals, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised(monkeypatch, Workers(["embed-worker", "embed-worker-2"], blow))
    monkeypatch.setattr(leaving, "is_waiting", lambda *_: True)
    shown = threading.Event()
    threading.Thread(target=shown.wait).start()  # as the progress is: it may be the one that takes the signal
    handler = signal.signal(blow, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):  # when that is done
            scale.scale(settings, "embed", 1)
        assert embed_workers(settings) == 1
    finally:
        signal.signal(blow, handler)
        shown.set()


@pytest.mark.parametrize("wanted", [2, 3])
def test_a_worker_that_somebody_has_left_stopped_is_started(
    wanted: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = supervised(monkeypatch, Workers(["embed-worker"]))
    scale.scale(settings, "embed", wanted)
    assert {"embed-worker", "embed-worker-2"} <= workers.at_work
    assert embed_workers(settings) == wanted == len(workers.at_work)


def test_a_worker_that_somebody_has_left_stopped_is_not_waited_for(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised(monkeypatch, Workers(["embed-worker"]))
    scale.scale(settings, "embed", 1)
    assert embed_workers(settings) == 1


@pytest.mark.parametrize("wanted", [1, 3])
def test_a_shell_without_the_java_of_the_start_can_scale(
    wanted: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = supervised(monkeypatch, Workers(["embed-worker", "embed-worker-2"]))
    monkeypatch.setattr(leaving, "is_waiting", lambda *_: True)

    def none() -> str:
        raise StackError("Kafka needs Java")

    monkeypatch.setattr(kafka, "java", none)
    scale.scale(settings, "embed", wanted)
    assert embed_workers(settings) == wanted == len(workers.at_work)


@pytest.mark.parametrize("queue", ["persist", "embed"])
def test_a_start_takes_no_more_workers_than_scale_does(queue: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "parts", lambda _: pytest.fail("it would start them"))
    too_many = Settings(**{f"{queue}_workers": MOST_WORKERS + 1})  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match=f"^{queue.upper()}_WORKERS=17: 1 to 16 can be run here"):
        starting.start(too_many)
