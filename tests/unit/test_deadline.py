"""The thread that ends overdue waits for PostgreSQL, in a process that forks, as a pool of Celery's does."""

import multiprocessing
from math import inf
from typing import Any

from db import deadline


def begin_free(answers: "multiprocessing.SimpleQueue[bool]") -> None:
    answers.put(not deadline._deadlines and not deadline._lock.locked() and deadline._thread is None)


def test_a_fork_in_the_middle_of_a_wait_leaves_it_to_the_parent() -> None:
    """The child would end that session over and over, or wait for a lock that nobody has."""
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.SimpleQueue[bool] = context.SimpleQueue()
    connection: Any = object()
    deadline.watch()
    with deadline._lock:
        deadline._deadlines[connection] = inf
        child = context.Process(target=begin_free, args=(answers,))
        child.start()
        assert answers.get()
        del deadline._deadlines[connection]
    child.join()
