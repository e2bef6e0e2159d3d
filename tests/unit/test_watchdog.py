"""When a worker counts as stalled, and that it ends then."""

import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import redis
from celery.worker import state

from tasks import watchdog
from tasks.watchdog import FROZEN_SECONDS, LOOK_SECONDS, STALLED_SECONDS, Stall, Watchdog


def looks(stall: Stall, first: int, last: int, *, taken: int = 5, busy: bool = False, waiting: int = 3) -> float:
    """What the last look said, of one every `LOOK_SECONDS`."""
    for now in range(first, last, int(LOOK_SECONDS)):
        stall.look(now, taken=taken, busy=busy, waiting=waiting)
    return stall.look(last, taken=taken, busy=busy, waiting=waiting)


def test_a_worker_that_takes_nothing_while_work_waits_is_stalled() -> None:
    stall = Stall()
    assert looks(stall, 100, 100) == 0
    assert looks(stall, 105, 131, waiting=4) == 31


def test_a_worker_that_is_at_it_is_not() -> None:
    stall = Stall()
    looks(stall, 100, 126)
    assert looks(stall, 131, 131, busy=True) == 0
    assert looks(stall, 136, 157) == 26
    assert looks(stall, 162, 162, taken=6) == 0


def test_nor_is_one_without_work() -> None:
    stall = Stall()
    looks(stall, 100, 126)
    assert looks(stall, 131, 131, waiting=0) == 0
    assert looks(stall, 132, 132, waiting=1) == 1


@pytest.mark.parametrize("frozen_at", [100, 115])
def test_nor_is_one_that_was_frozen(frozen_at: int) -> None:
    """By SIGSTOP, or docker pause: work has gathered meanwhile, and it could take none."""
    stall = Stall()
    looks(stall, 100, frozen_at)
    assert looks(stall, 700, 700) == 0
    assert looks(stall, 705, 735) == 35 > STALLED_SECONDS
    assert LOOK_SECONDS < FROZEN_SECONDS < STALLED_SECONDS


@pytest.fixture
def worker() -> SimpleNamespace:
    """A worker of one queue, with one child."""
    queues = SimpleNamespace(queues=[SimpleNamespace(name="persist")])
    pool = SimpleNamespace(_pool=SimpleNamespace(_pool=[SimpleNamespace(pid=4711)]))
    return SimpleNamespace(consumer=SimpleNamespace(task_consumer=queues), pool=pool)


@pytest.fixture
def watch(worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Whether a worker whose queues have so many tasks is ended within so many seconds."""
    ended: list[object] = []
    monkeypatch.setattr(watchdog, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(watchdog, "STALLED_SECONDS", 0.05)

    def watched(length: Callable[[str], int], seconds: float = 10.0) -> bool:
        monkeypatch.setattr(watchdog, "queue_length", length)
        step = Watchdog(worker)
        monkeypatch.setattr(step, "end", ended.append)
        thread = threading.Thread(target=step.watch, args=(worker,))
        thread.start()
        thread.join(seconds)
        step.stop(worker)
        thread.join(10.0)
        return ended == [worker]

    return watched


def test_a_stall_after_an_outage_of_the_broker_is_seen(watch: Callable[..., bool]) -> None:
    """It is after these that Celery's workers stall."""
    outages = iter([redis.ConnectionError("away"), OSError("away")])

    def length(_queue: str) -> int:
        for outage in outages:
            raise outage
        return 3

    assert watch(length)


@pytest.mark.parametrize("in_hand", ["active_requests", "reserved_requests"])
def test_a_worker_with_a_task_in_hand_is_left_alone(
    watch: Callable[..., bool], in_hand: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, in_hand, {"a task"})
    assert not watch(lambda _queue: 3, seconds=0.3)


def test_one_that_hangs_in_its_shutdown_is_killed_with_its_children(
    worker: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []
    own = SimpleNamespace(getpid=lambda: 1, kill=lambda *given: done.append(given), _exit=done.append)
    monkeypatch.setattr(watchdog, "os", own)
    monkeypatch.setattr(watchdog, "MERCY_SECONDS", 0.0)
    Watchdog(worker).end(worker)
    assert done == [(1, signal.SIGTERM), (4711, signal.SIGKILL), 1]
