"""Many long texts that the embed worker reads itself: a task takes some of them, and leaves the others to the next."""

import uuid

import pytest
from sqlalchemy import Engine

from settings import LOCAL_TASK_BYTES, TASK_BYTES, Settings
from tasks import embed, vectors
from tests.integration.test_embedding_faults import FAILED, JOBS, Fickle, fickle, job_ids  # noqa: F401
from tests.samples import ask, embedded, run

LONG = 90_000  # characters, one byte each
A_TASK = TASK_BYTES // LONG
TYPED = f"""
    INSERT INTO text_messages (id, message)
    SELECT gen_random_uuid(), repeat(chr(96 + number) || 'word ', {LONG // 6}) FROM generate_series(1, 12) AS number
"""


def do(database: Engine) -> int:
    """Does one task of all jobs, as the sweep sends it; returns how many more messages have vectors then."""
    before = len(embedded(database))
    embed.embed_text(job_ids(database))
    return len(embedded(database)) - before


def test_a_job_of_long_texts_is_done_part_by_part(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    run(database, TYPED)
    assert do(database) == A_TASK
    assert ask(database, JOBS) == [{"messages": 12 - A_TASK, "attempts": 0, "leased": False}]
    assert do(database) == A_TASK
    assert do(database) == 12 - 2 * A_TASK
    assert job_ids(database) == []


def test_jobs_that_a_task_does_not_get_to_are_free_while_it_works(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for _ in range(3):
        run(database, TYPED.replace("12)", "4)"))
    seen: list[list[dict[str, object]]] = []
    work = vectors.embed

    def look_and_work(*given: object) -> object:
        seen.append(ask(database, f"{JOBS} WHERE available_at <= clock_timestamp() ORDER BY id"))
        return work(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(embed, "embed", look_and_work)
    assert do(database) == A_TASK
    assert seen == [[{"messages": 4, "attempts": 0, "leased": False}]]
    assert ask(database, f"{JOBS} ORDER BY id") == [
        {"messages": 8 - A_TASK, "attempts": 0, "leased": False},
        {"messages": 4, "attempts": 0, "leased": False},
    ]
    assert do(database) == A_TASK
    assert do(database) == 12 - 2 * A_TASK
    assert ask(database, FAILED) == []
    assert job_ids(database) == []


def test_a_text_that_is_longer_than_a_task_may_read_is_embedded(
    database: Engine,
    settings: Settings,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert LOCAL_TASK_BYTES < LONG
    chosen = Settings(**{**settings.__dict__, "embedding_provider": "minilm"})
    monkeypatch.setattr("settings.load", lambda: chosen)
    run(database, TYPED.replace("12)", "2)"))
    assert do(database) == 1
    assert do(database) == 1
    assert job_ids(database) == []


def test_a_text_that_is_wanted_twice_is_not_left_for_ever(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    run(database, TYPED)
    run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    rounds = 0
    while job_ids(database) and rounds < 10:
        embed.embed_text(job_ids(database))
        rounds += 1
    assert rounds == 3
    assert len(embedded(database)) == 12


def test_a_message_that_is_gone_is_in_nobodys_way(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    run(database, TYPED)
    run(database, "UPDATE embedding_jobs SET message_ids = array_append(message_ids, gen_random_uuid())")
    rounds = 0
    while job_ids(database) and rounds < 10:
        embed.embed_text(job_ids(database))
        rounds += 1
    assert rounds == 3
    assert {uuid.UUID(found).version for found in embedded(database)} == {4}
