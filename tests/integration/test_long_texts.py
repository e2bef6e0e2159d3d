"""Many long texts that the embed worker reads itself: a task takes some of them, and the others go to further tasks."""

from collections.abc import Sequence

import pytest
from kombu.exceptions import OperationalError as BrokerAway
from sqlalchemy import Engine

from settings import LOCAL_TASK_BYTES, TASK_BYTES, Settings
from tasks import chain, embed, vectors
from tests.integration.test_embedding_faults import FAILED, JOBS, Fickle, fickle, job_ids  # noqa: F401
from tests.samples import ask, embedded, run

LONG = 90_000  # characters, one byte each
A_TASK = TASK_BYTES // LONG
TYPED = f"""
    INSERT INTO text_messages (id, message)
    SELECT gen_random_uuid(), repeat(chr(96 + number) || 'word ', {LONG // 6}) FROM generate_series(1, 12) AS number
"""
DUE = f"{JOBS} WHERE available_at <= clock_timestamp() ORDER BY id"


class Queue:
    """The queue `embed`: what is sent to it, and how many others are in it."""

    def __init__(self) -> None:
        self.length = 0
        self.sent: list[list[int]] = []

    def send(self, groups: Sequence[tuple[list[int], int]], *, priority: int) -> None:
        assert priority == 9  # behind what is short
        self.sent += [jobs for jobs, _ in groups]


@pytest.fixture(autouse=True)
def queue(monkeypatch: pytest.MonkeyPatch, fickle: Fickle) -> Queue:  # noqa: F811
    made = Queue()
    monkeypatch.setattr(chain, "queue_length", lambda _: made.length)
    monkeypatch.setattr(chain, "send_jobs", made.send)
    return made


def do(database: Engine, jobs: list[int] | None = None) -> int:
    """Does a task of these jobs, or of all; returns how many more messages have vectors then."""
    before = len(embedded(database))
    embed.embed_text(job_ids(database) if jobs is None else jobs)
    return len(embedded(database)) - before


def test_a_job_of_long_texts_is_done_part_by_part(database: Engine, queue: Queue) -> None:
    run(database, TYPED)
    assert do(database) == A_TASK
    assert ask(database, JOBS) == [{"messages": 12 - A_TASK, "attempts": 0, "leased": False}]
    assert ask(database, DUE) == []  # the sweep need not send it again
    assert queue.sent == [job_ids(database)]
    assert do(database, queue.sent.pop()) == A_TASK
    assert do(database, queue.sent.pop()) == 12 - 2 * A_TASK
    assert queue.sent == []
    assert job_ids(database) == []


def test_jobs_that_a_task_does_not_get_to_are_others_before_it_works(
    database: Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        run(database, TYPED.replace("12)", "2)"))
    jobs = job_ids(database)
    done: list[int] = []
    work = vectors.embed

    def do_the_others_and_work(*given: object) -> object:
        if not done:
            done.append(0)
            assert queue.sent == [jobs[3:5], jobs[5:]]
            done.extend(do(database, group) for group in list(queue.sent))
        return work(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(embed, "embed", do_the_others_and_work)
    assert do(database) == 10 + 1
    assert done == [0, 4, 2]
    assert queue.sent[2:] == [[jobs[2]]]
    assert do(database, queue.sent[2]) == 1
    assert ask(database, FAILED) == []
    assert job_ids(database) == []


@pytest.mark.parametrize("away", [False, True], ids=["where the queue is full", "where the broker is away"])
def test_what_cannot_be_sent_on_is_the_sweeps(
    database: Engine, queue: Queue, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    if away:

        def refuse(*_: object) -> int:
            raise BrokerAway

        monkeypatch.setattr(chain, "queue_length", refuse)
    queue.length = 16  # half of the queue
    for _ in range(3):
        run(database, TYPED.replace("12)", "4)"))
    assert do(database) == A_TASK
    assert queue.sent == []
    free = [
        {"messages": 8 - A_TASK, "attempts": 0, "leased": False},
        {"messages": 4, "attempts": 0, "leased": False},
    ]
    assert ask(database, DUE) == free
    assert do(database) == A_TASK
    assert do(database) == 12 - 2 * A_TASK
    assert job_ids(database) == []


def test_what_a_broker_refuses_waits_for_its_reservation_to_end(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BrokerAway

    monkeypatch.setattr(chain, "send_jobs", refuse)
    run(database, TYPED)
    assert do(database) == A_TASK
    assert ask(database, JOBS) == [{"messages": 12 - A_TASK, "attempts": 0, "leased": False}]


def test_a_provider_that_goes_away_amid_them_is_not_asked_again_at_once(
    database: Engine,
    queue: Queue,
    fickle: Fickle,  # noqa: F811
) -> None:
    run(database, TYPED)
    fickle.away_from_call = 6
    assert 0 < do(database) < A_TASK
    assert queue.sent == []
    assert len(ask(database, JOBS)) == 1


def test_a_text_that_is_longer_than_a_task_may_read_is_embedded(
    database: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LOCAL_TASK_BYTES < LONG
    chosen = Settings(**{**settings.__dict__, "embedding_provider": "minilm"})
    monkeypatch.setattr("settings.load", lambda: chosen)
    run(database, TYPED.replace("12)", "2)"))
    assert do(database) == 1
    assert do(database) == 1
    assert job_ids(database) == []


@pytest.mark.parametrize(
    "change",
    [
        "SELECT queue_embedding(array_agg(id)) FROM text_messages",
        "UPDATE embedding_jobs SET message_ids = array_append(message_ids, gen_random_uuid())",
    ],
    ids=["a text that is wanted twice", "a message that is gone"],
)
def test_nothing_is_left_for_ever(database: Engine, change: str) -> None:
    run(database, TYPED)
    run(database, change)
    rounds = 0
    while job_ids(database) and rounds < 10:
        do(database)
        rounds += 1
    assert rounds == 3
    assert len(embedded(database)) == 12
