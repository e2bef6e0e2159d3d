"""What is wrong with a watched part is told, whatever it is, and it is not kept busy with asking; whoever must not have
an old answer gets none."""

import threading
import time

import pytest

from api.observed import WAITERS, Watched
from tests.parts import eventually


class Part:
    """Answers 1, or raises what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.asked = 0

    def ask(self) -> int:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return 1


@pytest.mark.parametrize(
    ("error", "said", "lines"),
    [(OSError("away\nand more"), "away", 0), (KeyError("a bug"), "'a bug'", 1), (KeyError(), "KeyError", 1)],
)
def test_an_error_of_any_kind_is_a_problem_and_a_bug_is_logged_once(
    caplog: pytest.LogCaptureFixture, error: Exception, said: str, lines: int
) -> None:
    part = Part()
    watched = Watched(part.ask, (OSError,), keep=0.0)
    assert watched.look(10).value == 1
    part.error = error
    eventually(lambda: watched.look().problem == said)
    asked = part.asked
    eventually(lambda: watched.look().value == 1 and part.asked > asked + 1)
    assert len([record for record in caplog.records if record.exc_info and record.exc_info[1] is error]) == lines
    part.error = None
    eventually(lambda: watched.look().problem is None)


def test_a_question_that_failed_late_is_not_asked_again_at_once() -> None:
    def ask() -> int:
        asked.append(time.monotonic())
        time.sleep(0.05)
        raise OSError("too slow")

    asked: list[float] = []
    watched = Watched(ask, (OSError,), keep=0.0)

    def asked_twice() -> bool:
        watched.look()
        return len(asked) > 1

    eventually(asked_twice)
    assert asked[1] - asked[0] >= 0.05 * 21


def test_an_answer_may_be_asked_for_that_is_no_older_than_the_call() -> None:
    """Also while the question of somebody else is under way, and where the part has just answered."""

    def ask() -> int:
        numbers.append(len(numbers))
        now = numbers[-1]
        time.sleep(0.1)
        return now

    numbers: list[int] = []
    watched = Watched(ask, (OSError,))
    watched.refresh()
    eventually(lambda: numbers)
    for last in range(1, 4):
        since = time.monotonic()
        seen = watched.look_since(since, 10)
        assert (seen.value, seen.problem) == (last, None)
        assert seen.began >= since
    assert watched.look().value == 3


def test_a_part_that_answers_late_is_told_and_its_older_answer_is_known_by_its_time() -> None:
    def ask() -> int:
        free.wait()
        return 1

    free = threading.Event()
    free.set()
    watched = Watched(ask, (OSError,))
    assert watched.look_since(time.monotonic(), 10).value == 1
    free.clear()
    since = time.monotonic()
    late = watched.look_since(since, 0.1)
    assert late.problem == "no answer in time"
    assert late.began < since
    assert watched.look(0).problem is None  # for whoever only wants to know how it was lately
    free.set()
    assert watched.look_since(since, 10).problem is None


def test_those_who_cannot_wait_for_an_answer_learn_what_is_known() -> None:
    part = Part()
    watched = Watched(part.ask, (OSError,))
    assert watched.look(10).value == 1
    for _ in range(WAITERS):
        watched._waiters.acquire()
    since = time.monotonic()
    seen = watched.look_since(since, 10)
    assert (seen.value, seen.problem, seen.began < since) == (1, None, True)


def test_an_error_is_the_answer_to_the_one_who_asked() -> None:
    part = Part()
    watched = Watched(part.ask, (OSError,))
    assert watched.look(10).value == 1
    part.error = OSError("away")
    assert watched.look_since(time.monotonic(), 10).problem == "away"
    part.error = None
    assert watched.look_since(time.monotonic(), 10).problem is None
