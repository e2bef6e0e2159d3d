"""When a worker counts as stalled."""

from tasks.watchdog import Stall


def test_a_worker_that_takes_nothing_while_work_waits_is_stalled() -> None:
    stall = Stall()
    assert stall.look(100, taken=5, busy=False, waiting=3) == 0
    assert stall.look(131, taken=5, busy=False, waiting=4) == 31


def test_a_worker_that_is_at_it_is_not() -> None:
    stall = Stall()
    stall.look(100, taken=5, busy=False, waiting=3)
    assert stall.look(131, taken=5, busy=True, waiting=3) == 0
    assert stall.look(162, taken=6, busy=False, waiting=3) == 0


def test_nor_is_one_without_work() -> None:
    stall = Stall()
    stall.look(100, taken=5, busy=False, waiting=3)
    assert stall.look(131, taken=5, busy=False, waiting=0) == 0
    assert stall.look(132, taken=5, busy=False, waiting=1) == 1
