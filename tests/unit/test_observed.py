"""What is wrong with a watched part is told, whatever it is, and it is not kept busy with asking."""

import time

import pytest

from api.observed import Watched
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
