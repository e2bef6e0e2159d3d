"""What the console's buttons do, without a server: during an outage the same dead letters are meant as before it, and
a long search for copies is done in turns.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import psycopg2
import pytest
from celery.exceptions import TaskRevokedError
from flask import render_template
from kafka.errors import KafkaTimeoutError
from sqlalchemy.exc import OperationalError

from api.app import create_app
from api.console.actions import Action, look
from db import console_commands, dead_letter_queries, dead_letters
from settings import Settings
from tasks import actions, resources, second_try
from tasks.app import app
from tasks.second_try import Tried


@contextmanager
def transaction() -> Iterator[object]:
    yield object()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A database whose clock goes on with every look."""
    times = iter(f"look {number}" for number in range(1, 100))
    monkeypatch.setattr(resources, "engine", lambda: SimpleNamespace(begin=transaction))
    monkeypatch.setattr(console_commands, "now", lambda _: next(times))


def test_a_task_that_nobody_has_heard_of_is_asked_for_a_minute_only() -> None:
    """An id of yesterday looks like a task that waits: its result has expired."""
    state: dict[str, Any] = {"status": "PENDING"}
    sender: Any = SimpleNamespace(backend=SimpleNamespace(get_task_meta=lambda _: state))
    console = create_app("search", Settings())

    def page(since: int | None) -> str:
        with console.test_request_context():
            return render_template("console/action.html", action=look(sender, "a-b", since), id="a-b")

    now = int(time.time())
    assert "Waiting for a persist worker" in page(None)
    assert f"/console/actions/a-b?since={now - 50}" in page(now - 50), "the next look knows since when"
    assert "hx-get" not in page(now - 70)
    assert "No worker has said anything" in page(now - 70)
    assert 'href="/?action=a-b"' in page(now - 70)
    state |= {"status": "PROGRESS", "result": {"sent": 1, "failed": 0}}
    assert "hx-get" in page(now - 70)


def test_a_task_that_somebody_has_revoked_is_not_waited_for() -> None:
    state = {"status": "REVOKED", "result": TaskRevokedError("revoked")}
    sender: Any = SimpleNamespace(backend=SimpleNamespace(get_task_meta=lambda _: state))
    assert look(sender, "a-b") == Action("It did not work: revoked", done=True, failed=True)


@pytest.mark.parametrize("result", [None, 5, [], {}, {"sent": None, "failed": 0}, {"queued": "many"}, {"dropped": "a"}])
@pytest.mark.parametrize("status", ["SUCCESS", "PROGRESS"])
def test_a_result_that_no_button_makes_ends_the_wait(status: str, result: object) -> None:
    """Any task's id can stand in the address, also that of another version."""
    sender: Any = SimpleNamespace(backend=SimpleNamespace(get_task_meta=lambda _: {"status": status, "result": result}))
    assert look(sender, "a-b").done


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
    ("task", "module", "command", "answer"),
    [
        (actions.replay_dead_letters, dead_letter_queries, "open_until", ([], None)),
        (actions.drop_dead_letters, dead_letters, "drop", 1),
        (actions.retry_failures, console_commands, "retry_failures", 1),
    ],
)
def test_a_button_means_the_same_after_an_outage(
    clock: None,
    monkeypatch: pytest.MonkeyPatch,
    task: Any,
    module: ModuleType,
    command: str,
    answer: Any,
    given: str | None,
) -> None:
    untils: list[str] = []
    monkeypatch.setattr(module, command, away_at_first(untils, answer))
    task.apply(kwargs={} if given is None else {"until": given})
    assert untils == [given or "look 1"] * 2


def test_a_replay_comes_again_for_the_same_letters_while_kafka_is_away(
    clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    untils: list[str] = []
    tries: list[list[int]] = []

    def open_letters(_: object, *, until: str, **__: object) -> tuple[list[dict[str, Any]], None]:
        untils.append(until)
        return [{"topic": "t", "partition": 0, "offset": 5}], None

    def sendable(_config: object, rows: list[dict[str, Any]]) -> tuple[dict[Any, Any], list[str]]:
        tries.append([row["offset"] for row in rows])
        if len(tries) == 1:
            raise KafkaTimeoutError("no broker answers")
        return {}, []

    monkeypatch.setattr(dead_letter_queries, "open_until", open_letters)
    monkeypatch.setattr(second_try, "sendable", sendable)
    actions.replay_dead_letters.apply()
    assert (untils, tries) == (["look 1"] * 2, [[5], [5]])


def test_a_search_goes_on_in_the_next_turn_and_then_the_next_piece_comes(
    clock: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a worker does it: each turn is sent as a task, and the worker is free for others between them."""
    a, b, c = ({"topic": "t", "partition": 0, "offset": offset} for offset in range(3))
    pieces = {None: ([a, b], "behind b"), "behind b": ([c], None)}
    answers = [
        Tried(0, [], [("t", 0, 0), ("t", 0, 1)], [(0, 5, 9)]),
        Tried(1, [], [("t", 0, 1)], [(0, 7, 9)]),
        Tried(0, ["t:0:1: nothing has it whole any more"], [], []),
        Tried(1, [], [], []),
    ]
    turns: list[tuple[list[int], Any]] = []
    sent: list[dict[str, Any]] = [{"why": "r"}]

    def send_again(_config: object, rows: list[dict[str, Any]], unread: object) -> Tried:
        turns.append(([row["offset"] for row in rows], unread))
        return answers[len(turns) - 1]

    monkeypatch.setattr(second_try, "send_again", send_again)
    monkeypatch.setattr(dead_letter_queries, "open_until", lambda _, *, cursor, **__: pieces[cursor])
    monkeypatch.setattr(
        dead_letter_queries,
        "by_key",
        lambda _, keys: [row for row in (a, b, c) if row["offset"] in {k[2] for k in keys}],
    )
    monkeypatch.setattr(actions.replay_dead_letters, "update_state", lambda **_: None)
    monkeypatch.setattr(app, "send_task", lambda _name, kwargs, **_: sent.append(kwargs))
    for number in range(len(answers)):
        result = actions.replay_dead_letters.apply(kwargs=json.loads(json.dumps(sent[number]))).result
    assert turns == [([0, 1], None), ([0, 1], [[0, 5, 9]]), ([1], [[0, 7, 9]]), ([2], None)]
    assert {kwargs.get("until") for kwargs in sent[1:]} == {"look 1"}
    assert result == {"sent": 2, "failed": 1, "problems": ["t:0:1: nothing has it whole any more"]}
