"""What the console's buttons do, without a server: during an outage the same dead letters are meant as before it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from sqlalchemy.exc import OperationalError

from db import console_commands
from tasks import actions, resources


@contextmanager
def transaction() -> Iterator[object]:
    yield object()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose clock goes on with every look."""
    times = iter(f"look {number}" for number in range(1, 100))
    monkeypatch.setattr(resources, "engine", lambda: SimpleNamespace(begin=transaction))
    monkeypatch.setattr(console_commands, "now", lambda _: next(times))


def away_at_first(untils: list[str], answer: Any) -> Callable[..., Any]:
    """A command of the database that notes its `until`, and finds the database away the first time."""

    def command(*_: object, until: str, **__: object) -> Any:
        untils.append(until)
        if len(untils) == 1:
            raise OperationalError("", {}, psycopg2.OperationalError("server closed the connection unexpectedly"))
        return answer

    return command


@pytest.mark.parametrize("given", [None, "when the page was made"])
@pytest.mark.parametrize(
    ("task", "command", "answer"),
    [
        (actions.replay_dead_letters, "open_letters", ([], None)),
        (actions.drop_dead_letters, "drop_letters", 1),
        (actions.retry_failures, "retry_failures", 1),
    ],
)
def test_a_button_means_the_same_after_an_outage(
    clock: None, monkeypatch: pytest.MonkeyPatch, task: Any, command: str, answer: Any, given: str | None
) -> None:
    untils: list[str] = []
    monkeypatch.setattr(console_commands, command, away_at_first(untils, answer))
    task.apply(kwargs={} if given is None else {"until": given})
    assert untils == [given or "look 1"] * 2
