"""When a worker counts as stalled."""

import pytest

from tasks.watchdog import FROZEN_SECONDS, LOOK_SECONDS, STALLED_SECONDS, Stall


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
