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


@pytest.mark.parametrize(("idle", "given"), [(LONGEST_SECONDS + 0.1, 1), (2 * LONGEST_SECONDS + 0.1, 3)])
def test_who_asks_while_another_counts(monkeypatch: pytest.MonkeyPatch, idle: float, given: int) -> None:
    """Takes the last answer where that is not old, and counts beside the other where it is."""

    def count(connection: Any) -> dict[str, int]:
        if slow.counted == 1:
            slow.counted += 1
            found.append(sizes.of(connection))
        return slow.count(connection)

    found: list[dict[str, int]] = []
    slow = Slow(5.0)
    monkeypatch.setattr("api.sizes.time", slow)
    sizes = Sizes(count)
    sizes.of(None)  # type: ignore[arg-type]
    slow.now += idle
    sizes.of(None)  # type: ignore[arg-type]
    assert found == [{"embedded": given}]


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
