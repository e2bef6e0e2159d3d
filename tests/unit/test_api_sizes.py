"""What is slow to count is not counted for each who asks."""

from typing import Any

import pytest

from api.sizes import LONGEST_SECONDS, SHARE, Sizes


class Slow:
    """A clock, and a count that takes so many seconds of it."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 1_000.0
        self.counted = 0

    def monotonic(self) -> float:
        return self.now

    def count(self, _connection: Any) -> dict[str, int]:
        self.now += self.seconds
        self.counted += 1
        return {"embedded": self.counted}


@pytest.mark.parametrize(
    ("seconds", "after", "counts"),
    [
        (0.01, 0.0, 2),
        (0.2, 0.2 * SHARE - 0.1, 1),
        (0.2, 0.2 * SHARE + 0.01, 2),
        (5.0, LONGEST_SECONDS - 0.1, 1),
        (5.0, LONGEST_SECONDS + 0.1, 2),
    ],
)
def test_how_often_it_counts(monkeypatch: pytest.MonkeyPatch, seconds: float, after: float, counts: int) -> None:
    slow = Slow(seconds)
    monkeypatch.setattr("api.sizes.time", slow)
    sizes = Sizes(slow.count)
    assert sizes.of(None) == {"embedded": 1}  # type: ignore[arg-type]
    slow.now += after
    assert sizes.of(None) == {"embedded": counts}  # type: ignore[arg-type]


def test_a_count_that_failed_is_tried_again() -> None:
    def count(_connection: Any) -> dict[str, int]:
        answers.pop()
        return {"embedded": 1}

    answers: list[int] = []
    sizes = Sizes(count)
    with pytest.raises(IndexError):
        sizes.of(None)  # type: ignore[arg-type]
    answers.append(1)
    assert sizes.of(None) == {"embedded": 1}  # type: ignore[arg-type]
