"""What embed_text does when the model, a provider, or the worker beside it fails half way: nothing good is thrown away,
and what was not tried costs no attempt."""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import psycopg2
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from numpy.typing import NDArray
from sqlalchemy import Engine

from db import embeddings, outbox, reembedding
from embedder import EmbedderUnavailable, UnembeddableText
from embedder.hashing import HashingEmbedder
from settings import Settings
from tasks import embed, resources, upkeep, vectors
from tasks.broker import BULK_PRIORITY
from tasks.reembedding import noted_for
from telemetry.numbers import EMBEDDING_FAILURES, TALLY
from tests.parts import eventually
from tests.samples import OTHER_LEASE, a_record, ask, embedded, meanwhile, persist, run

FAILED = "SELECT message_id::text AS id, reason FROM embedding_failures"
JOBS = "SELECT cardinality(message_ids) AS messages, attempts, lease IS NOT NULL AS leased FROM embedding_jobs"


class Killed(BaseException):
    """The end of a worker, as far as a test outlives that: nothing is said or given back any more."""


class Fickle(HashingEmbedder):
    """The hashing provider, with texts that it cannot split or embed, or that kill it, and calls that go wrong or
    wait."""

    model = "fickle-384"
    worth_keeping = True

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.calls = 0
        self.away_from_call = 10**9
        self.death: type[BaseException] = Killed
        self.gate: threading.Event | None = None
        self.inside = threading.Event()

    def passages(self, text: str) -> list[tuple[int, int]]:
        if "unsplittable" in text:
            raise ValueError("no token for it")
        if "endless" in text:
            raise self.death
        return list(super().passages(text))

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.calls += 1
        if self.calls >= self.away_from_call:
            raise EmbedderUnavailable("429", retry_after=0.0)
        if any("deadly" in text for text in texts):
            raise self.death
        for place, text in enumerate(texts):
            if "unembeddable" in text:
                raise UnembeddableText("no vector for it", place)
        self.texts += texts
        self.inside.set()
        if self.gate is not None:
            assert self.gate.wait(20)
        return super().embed(texts)


@pytest.fixture
def fickle(settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch) -> Fickle:
    """The worker's resources in this process: the test's database, and the fickle embedder."""
    made = Fickle()
    with database.begin() as connection:
        embeddings.register_model(connection, made.model, made.dimensions)
    monkeypatch.setattr(resources, "engine", lambda: database)
    monkeypatch.setattr(resources, "embedder", lambda: made)
    monkeypatch.setattr("settings.load", lambda: settings)
    return made


def job_ids(database: Engine) -> list[int]:
    return [row["id"] for row in ask(database, "SELECT id FROM embedding_jobs ORDER BY id")]


def test_a_text_that_cannot_be_split_fails_alone(database: Engine, fickle: Fickle) -> None:
    records = [a_record("one"), a_record("unsplittable"), a_record("three")]
    persist(database, *records)
    embed.embed_text(job_ids(database))
    assert embedded(database) == {records[0].id, records[2].id}
    assert ask(database, FAILED) == [{"id": records[1].id, "reason": "ValueError: no token for it"}]
    assert job_ids(database) == []


UNSTORABLE = "no token for \ud83d and \0"


def test_a_reason_that_quotes_what_no_database_takes_is_stored(
    database: Engine, fickle: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def passages(text: str) -> list[tuple[int, int]]:
        raise ValueError(UNSTORABLE)

    monkeypatch.setattr(fickle, "passages", passages)
    persist(database, a_record("one"))
    embed.embed_text(job_ids(database))
    (failed,) = ask(database, FAILED)
    assert failed["reason"] == r"ValueError: no token for \ud83d and \0"
    assert job_ids(database) == []


def test_a_problem_that_quotes_what_no_database_takes_is_noted(database: Engine, fickle: Fickle) -> None:
    with database.begin() as connection:
        reembedding.start(connection, "another", 384, {})
    with pytest.raises(EmbedderUnavailable), noted_for("another"):
        raise EmbedderUnavailable(UNSTORABLE)
    assert ask(database, "SELECT problem FROM reembedding") == [
        {"problem": r"EmbedderUnavailable: no token for \ud83d and \0"}
    ]


@pytest.mark.parametrize("away_from_call", [2, 3], ids=["with more behind", "at the end"])
def test_a_provider_that_goes_away_half_way_keeps_what_it_has_done(
    away_from_call: int, database: Engine, fickle: Fickle
) -> None:
    long = "word " * (vectors.PORTION_CHARS // 10 + 100)
    records = [a_record(f"{number} {long}") for number in range(5)]
    persist(database, *records)
    fickle.away_from_call = away_from_call
    embed.embed_text(job_ids(database))
    done = embedded(database)
    assert 0 < len(done) < 5
    assert ask(database, JOBS) == [{"messages": 5 - len(done), "attempts": 0, "leased": False}]
    fickle.away_from_call = 10**9
    embed.embed_text(job_ids(database))
    assert embedded(database) == {record.id for record in records}
    assert ask(database, FAILED) == []


def test_a_provider_that_goes_away_keeps_what_it_has_found(database: Engine, fickle: Fickle) -> None:
    records = [a_record(text) for text in ("one", "unembeddable", "three", "four")]
    persist(database, *records)
    fickle.away_from_call = 3
    embed.embed_text(job_ids(database), {record.id: str(record.message) for record in records})
    assert embedded(database) == {records[0].id}
    assert ask(database, FAILED) == [{"id": records[1].id, "reason": "UnembeddableText: no vector for it"}]
    assert ask(database, JOBS) == [{"messages": 2, "attempts": 0, "leased": False}]
    fickle.away_from_call = 10**9
    embed.embed_text(job_ids(database))
    assert embedded(database) == {records[0].id, records[2].id, records[3].id}
    assert len(ask(database, FAILED)) == 1


def test_a_text_that_failed_in_one_portion_does_not_wait_for_the_next(database: Engine, fickle: Fickle) -> None:
    failing = a_record("unembeddable " + "A sentence of a long text, which has several passages. " * 60)
    persist(database, failing)
    fickle.batch_max = 1
    fickle.away_from_call = 2
    embed.embed_text(job_ids(database))
    assert [row["id"] for row in ask(database, FAILED)] == [failing.id]
    assert job_ids(database) == []


def test_a_provider_is_given_no_more_texts_at_once_than_it_takes(database: Engine, fickle: Fickle) -> None:
    records = [a_record(f"text {number}") for number in range(5)]
    persist(database, *records)
    fickle.batch_max = 2
    fickle.away_from_call = 3
    embed.embed_text(job_ids(database))
    assert len(embedded(database)) == 4
    assert ask(database, JOBS) == [{"messages": 1, "attempts": 0, "leased": False}]


def test_a_provider_that_is_away_costs_no_attempt(database: Engine, fickle: Fickle) -> None:
    persist(database, a_record("one"), a_record("two"))
    fickle.away_from_call = 1
    for _ in range(8):
        embed.embed_text(job_ids(database))
        run(database, "UPDATE embedding_jobs SET available_at = clock_timestamp()")
    assert ask(database, JOBS) == [{"messages": 2, "attempts": 0, "leased": False}]


@pytest.mark.parametrize("death", [SoftTimeLimitExceeded, MemoryError])
@pytest.mark.parametrize("text", ["deadly", "endless"])
def test_a_try_that_was_cut_short_counts_and_is_followed_by_another_after_a_pause(
    database: Engine, fickle: Fickle, death: type[Exception], text: str
) -> None:
    fickle.death = death
    persist(database, a_record(text), a_record("one"))
    embed.embed_text(job_ids(database))
    assert ask(database, FAILED) == []
    assert ask(database, JOBS) == [{"messages": 2, "attempts": 1, "leased": True}]
    embed.embed_text(job_ids(database))
    assert ask(database, JOBS) == [{"messages": 2, "attempts": 1, "leased": True}], "it waits for its lease"


@pytest.mark.parametrize(
    ("jobs", "attempts_max", "death"),
    [
        ([1] * 40, 5, Killed),
        ([1] * 40, 1, Killed),
        ([5] * 8, 5, Killed),
        ([40], 5, Killed),
        ([40], 5, SoftTimeLimitExceeded),
        ([5] * 8, 5, MemoryError),
    ],
)
def test_a_text_that_kills_its_worker_fails_alone(
    jobs: list[int],
    attempts_max: int,
    death: type[BaseException],
    database: Engine,
    settings: Settings,
    fickle: Fickle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = Settings(**{**settings.__dict__, "embed_attempts_max": attempts_max})
    monkeypatch.setattr("settings.load", lambda: chosen)
    fickle.death = death
    deadly = a_record("deadly")
    records = [*(a_record(f"text {number}") for number in range(sum(jobs) - 1)), deadly]
    for size in jobs:
        persist(database, *records[-size:])
        records = records[-size:] + records[:-size]
    sent: list[list[int]] = []
    monkeypatch.setattr(upkeep, "send_jobs", lambda groups, **_: sent.extend(ids for ids, _ in groups))
    monkeypatch.setattr(upkeep, "queue_length", lambda _: 0)
    rounds = 0
    while job_ids(database):
        run(database, "UPDATE embedding_jobs SET available_at = clock_timestamp()")
        sent.clear()
        upkeep.feed(chosen)
        assert rounds > 0 or len(sent) == 1, "all of them in one task"
        for ids in sent:
            with contextlib.suppress(Killed):
                embed.embed_text(ids)
        rounds += 1
    assert rounds < 20, "each costs a worker"
    assert [each["id"] for each in ask(database, FAILED)] == [deadly.id]
    assert embedded(database) == {record.id for record in records} - {deadly.id}


@pytest.mark.usefixtures("fickle")
def test_bulk_gives_way_except_for_the_oldest_task_of_a_sweep(
    database: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Settings(**{**settings.__dict__, "embed_batch_max": 60, "embed_queue_max": 10})
    for size in (60, 60, 60, 1):
        persist(database, *(a_record(f"text {number}") for number in range(size)))
    first, second, third, small = job_ids(database)
    sent: list[tuple[list[int], int]] = []
    monkeypatch.setattr(
        upkeep, "send_jobs", lambda groups, priority: sent.extend((sorted(ids), priority) for ids, _ in groups)
    )
    monkeypatch.setattr(upkeep, "queue_length", lambda _: 6)
    assert upkeep.feed(chosen) == 0, "more than half of the queue's places are taken"
    monkeypatch.setattr(upkeep, "queue_length", lambda _: 5)
    assert upkeep.feed(chosen) == 181
    assert sent == [([small], 0), ([first], 0), ([second], BULK_PRIORITY), ([third], BULK_PRIORITY)]


def test_a_text_that_was_given_up_is_counted_with_those_that_failed(database: Engine, fickle: Fickle) -> None:
    persist(database, a_record("spent"))
    run(database, "UPDATE embedding_jobs SET attempts = 99")
    TALLY.take()
    embed.embed_text(job_ids(database))
    (failed,) = ask(database, "SELECT reason, attempts FROM embedding_failures")
    assert failed["reason"].startswith("given up after 99 attempts")
    assert failed["attempts"] == 99
    assert TALLY.take()[EMBEDDING_FAILURES.name] == 1


REFUSE = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.message_id = '{}' THEN RAISE 'not this one'; END IF; RETURN NEW;
    END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON message_embeddings FOR EACH ROW EXECUTE FUNCTION refuse()
"""


def every_job(database: Engine) -> None:
    run(database, "UPDATE embedding_jobs SET available_at = clock_timestamp()")
    for job in job_ids(database):
        with contextlib.suppress(psycopg2.errors.RaiseException):
            embed.embed_text([job])


def test_a_text_whose_task_ends_with_an_error_is_tried_until_that_is_mended_and_the_others_pass(
    database: Engine, fickle: Fickle
) -> None:
    refused = a_record("refused")
    records = [a_record("one"), refused, a_record("three")]
    persist(database, *records)
    run(database, REFUSE.format(refused.id))
    with pytest.raises(psycopg2.errors.RaiseException):
        embed.embed_text(job_ids(database))
    assert ask(database, JOBS) == [{"messages": 3, "attempts": 1, "leased": False}]
    assert ask(database, "SELECT available_at > clock_timestamp() + INTERVAL '20 s' AS waits FROM embedding_jobs") == [
        {"waits": True}
    ]
    for _ in range(12):
        every_job(database)
    assert embedded(database) == {record.id for record in records} - {refused.id}
    assert ask(database, FAILED) == []
    assert ask(database, JOBS) == [{"messages": 1, "attempts": 1, "leased": False}]
    run(database, "DROP TRIGGER refuse ON message_embeddings")
    every_job(database)
    assert embedded(database) == {record.id for record in records}


def test_an_error_of_a_task_is_told_even_where_its_jobs_cannot_be_given_back(
    database: Engine, fickle: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Callable[..., None]:
        def fail(*_: object, **__: object) -> None:
            raise error

        return fail

    persist(database, a_record("one"))
    monkeypatch.setattr(embed, "finish", failing(RuntimeError("a bug")))
    with pytest.raises(RuntimeError, match="a bug"):
        embed.embed_text(job_ids(database))
    assert ask(database, JOBS) == [{"messages": 1, "attempts": 1, "leased": False}]
    monkeypatch.setattr(outbox, "release_failed_jobs", failing(psycopg2.OperationalError()))
    with pytest.raises(RuntimeError, match="a bug"):
        embed.embed_text(job_ids(database))


def test_a_lease_is_renewed_while_the_model_is_slow(
    database: Engine, settings: Settings, fickle: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = Settings(**{**settings.__dict__, "embed_lease_seconds": 0.6})
    monkeypatch.setattr("settings.load", lambda: quick)
    persist(database, a_record("one"))
    (job,) = job_ids(database)
    fickle.gate = threading.Event()

    def expires() -> Any:
        return ask(database, "SELECT available_at AS at FROM embedding_jobs")[0]["at"]

    with meanwhile(lambda: embed.embed_text([job])):
        assert fickle.inside.wait(10)
        first = expires()
        eventually(lambda: (expires() - first).total_seconds() > 1.0)
        with database.begin() as connection:
            assert outbox.claim_jobs(connection, [job], OTHER_LEASE, 60) == []
        fickle.gate.set()
    assert len(embedded(database)) == 1


def test_of_two_jobs_one_that_was_lost_leaves_the_other_its_vectors(database: Engine, fickle: Fickle) -> None:
    ours, theirs = a_record("one"), a_record("two")
    persist(database, ours)
    persist(database, theirs)
    first, second = job_ids(database)
    fickle.gate = threading.Event()
    with meanwhile(lambda: embed.embed_text([first, second])):
        assert fickle.inside.wait(10)
        run(
            database,
            "UPDATE embedding_jobs SET lease = CAST(:lease AS uuid) WHERE id = :id",
            lease=OTHER_LEASE,
            id=second,
        )
        fickle.gate.set()
    assert embedded(database) == {ours.id}
    assert job_ids(database) == [second]


def test_a_message_that_has_its_vector_already_gets_it_anew_and_its_neighbour_too(
    database: Engine, fickle: Fickle
) -> None:
    records = [a_record("one"), a_record("two")]
    persist(database, records[0])
    embed.embed_text(job_ids(database))
    run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    persist(database, records[1])
    embed.embed_text(job_ids(database))
    assert job_ids(database) == []
    assert ask(database, "SELECT count(*) AS vectors FROM message_embeddings") == [{"vectors": 2}]
    assert embedded(database) == {record.id for record in records}


def test_a_text_that_was_embedded_before_is_not_embedded_again(database: Engine, fickle: Fickle) -> None:
    long = "A sentence of a long text, which has several passages. " * 60
    records = [a_record("same"), a_record("same"), a_record(long)]
    persist(database, *records)
    embed.embed_text(job_ids(database))
    assert fickle.texts.count("same") == 1
    made = len(fickle.texts)
    assert made > 3
    again = [a_record("same"), a_record(long), a_record("new")]
    persist(database, *again)
    embed.embed_text(job_ids(database))
    assert fickle.texts[made:] == ["new"]
    assert embedded(database) == {record.id for record in records + again}
    passages = """SELECT passage_number, passage_start, passage_end, embedding::text AS vector FROM message_embeddings
                  WHERE message_id = CAST(:id AS uuid) ORDER BY passage_number"""
    assert ask(database, passages, id=again[1].id) == ask(database, passages, id=records[2].id)
    assert len(ask(database, passages, id=again[1].id)) > 1


def test_a_text_that_was_given_up_after_another_model_became_active_waits_for_that(
    database: Engine, fickle: Fickle, monkeypatch: pytest.MonkeyPatch
) -> None:
    forgotten: list[bool] = []
    monkeypatch.setattr(resources.embedder, "cache_clear", lambda: forgotten.append(True), raising=False)
    spent, well = a_record("spent"), a_record("well")
    persist(database, spent)
    persist(database, well)
    first, second = job_ids(database)
    run(database, "UPDATE embedding_jobs SET attempts = 99 WHERE id = :id", id=first)
    run(database, "UPDATE embedding_models SET name = 'another' WHERE active")
    embed.embed_text([first, second])
    assert forgotten
    assert ask(database, FAILED) == []
    assert job_ids(database) == [first, second]


def test_of_a_typed_text_that_no_record_may_have_the_beginning_is_embedded(
    database: Engine, settings: Settings, fickle: Fickle
) -> None:
    run(
        database,
        "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), repeat('word ', 100000))",
    )
    embed.embed_text(job_ids(database))
    most = "SELECT max(passage_end) AS most FROM message_embeddings"
    assert ask(database, most) == [{"most": settings.max_text_chars}]
    assert job_ids(database) == []


@pytest.mark.usefixtures("fickle")
@pytest.mark.parametrize("name", ["lease", "model", "held"])
def test_a_number_for_a_string_is_a_mistake_and_no_outage(name: str) -> None:
    with pytest.raises(TypeError, match=rf"embed_text\(\) takes a string as {name}, not int"):
        embed.embed_text([1], {}, **{name: 5})
