"""How persist_text cuts what it has stored into embed_text tasks."""

import time
from typing import Any

import pytest

from settings import LOCAL_TASK_MESSAGES, REMOTE_TASK_MESSAGES, Settings
from tasks import persist
from tasks.app import app
from tasks.chain import SENT, chain_embedding, embed_queue_has_room


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[int], dict[str, str]]]:
    found: list[tuple[list[int], dict[str, str]]] = []

    def send_task(_name: str, args: list[Any], **_options: object) -> None:
        found.append((args[0], args[1]))

    monkeypatch.setattr(app, "send_task", send_task)
    return found


def chain(monkeypatch: pytest.MonkeyPatch, given: Settings, sizes: list[int]) -> dict[str, str]:
    monkeypatch.setattr("settings.load", lambda: given)
    jobs = {number: [f"{number}.{place}" for place in range(size)] for number, size in enumerate(sizes)}
    texts = {message: f"text of {message}" for messages in jobs.values() for message in messages}
    chain_embedding(jobs, texts)
    return texts


@pytest.mark.parametrize(
    ("given", "sizes", "tasks"),
    [
        (Settings(embedding_provider="hashing"), [800, 800, 800], [[0, 1], [2]]),
        (Settings(embedding_provider="minilm"), [100, 100, 40, 60], [[0], [1], [2, 3]]),
        (Settings(embedding_provider="minilm", embed_batch_max=20), [20, 20, 1], [[0], [1], [2]]),
        (Settings(embedding_provider="minilm"), [500], [[0]]),
        (Settings(embedding_provider="hashing"), [1], [[0]]),
    ],
)
def test_each_task_has_the_jobs_that_fit_and_their_texts(
    monkeypatch: pytest.MonkeyPatch,
    sent: list[tuple[list[int], dict[str, str]]],
    given: Settings,
    sizes: list[int],
    tasks: list[list[int]],
) -> None:
    texts = chain(monkeypatch, given, sizes)
    assert [jobs for jobs, _ in sent] == tasks
    handed = [message for _, each in sent for message in each]
    assert len(handed) == len(texts), "each text once"
    assert {message: text for _, each in sent for message, text in each.items()} == texts
    assert all(int(message.split(".")[0]) in jobs for jobs, each in sent for message in each)


def test_a_held_job_has_a_task_of_its_own_with_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[list[Any], dict[str, str]]] = []
    since: list[float] = []

    def send_task(_name: str, args: list[Any], kwargs: dict[str, str], headers: dict[str, float], **_: object) -> None:
        found.append((args, kwargs))
        since.append(headers[SENT])

    monkeypatch.setattr("settings.load", lambda: Settings(embedding_provider="hashing"))
    monkeypatch.setattr(app, "send_task", send_task)
    texts = {"a": "1", "b": "2", "c": "3", "d": "4"}
    chain_embedding({1: ["a"], 2: ["b"], 3: ["c"], 4: ["d", "gone"]}, texts, {2: "lease", 4: "lease"}, 5.0)
    assert since == [5.0, 5.0, 5.0], "since the lease began, not since the task was sent"
    assert found == [
        ([[2], {"b": "2"}], {"held": "lease"}),
        ([[4], {"d": "4"}], {"held": "lease"}),
        ([[1, 3], {"a": "1", "c": "3"}], {}),
    ]


def test_a_held_job_is_as_old_as_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halves of a batch are stored one after the other, and chained at its end."""
    stored_at: list[float] = []
    chained: list[tuple[Any, ...]] = []

    def store(_batch: object, outcome: persist.Outcome, *_: object) -> None:
        stored_at.append(time.time())
        outcome.jobs[1] = ["a"]

    monkeypatch.setattr(persist, "embed_queue_has_room", lambda _: True)
    monkeypatch.setattr(persist, "store_or_halve", store)
    monkeypatch.setattr(persist, "chain_embedding", lambda *given: chained.append(given))
    persist.persist_text([])
    (given,) = chained
    assert given[3] <= stored_at[0]


def test_a_task_of_a_model_that_computes_here_is_short() -> None:
    assert Settings(embedding_provider="fastembed").embed_task_messages == LOCAL_TASK_MESSAGES
    assert Settings(embedding_provider="openai").embed_task_messages == REMOTE_TASK_MESSAGES
    assert Settings(embedding_provider="openai", embed_batch_max=10).embed_task_messages == 10
    assert Settings(embedding_provider="hashing").embed_task_messages == Settings.embed_batch_max


@pytest.mark.parametrize(
    ("waiting", "bulk", "messages", "room"),
    [
        (0, 0, 1, True),
        (31, 0, 1, True),
        (32, 0, 1, False),
        (22, 0, 1000, True),  # ten tasks more
        (23, 0, 1000, False),
        (10, 12, 1000, True),
        (10, 13, 1000, False),
        (10, 32, 50, True),  # few messages go before the bulk, so they need not wait for it
        (0, 0, 5000, True),  # more than the queue may hold: alone in it
        (1, 0, 5000, False),
    ],
)
def test_what_the_queue_has_no_room_for_waits_in_postgresql(
    monkeypatch: pytest.MonkeyPatch, waiting: int, bulk: int, messages: int, room: bool
) -> None:
    monkeypatch.setattr("settings.load", lambda: Settings(embedding_provider="minilm", embed_queue_max=32))
    monkeypatch.setattr("tasks.chain.queue_length", lambda _: waiting + bulk)
    monkeypatch.setattr("tasks.chain.length_at_priority", lambda _, priority: {0: waiting}[priority])
    assert embed_queue_has_room(messages) is room
