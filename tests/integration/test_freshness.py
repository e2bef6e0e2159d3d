"""How long texts took until they were searchable, as embed workers sample it: of new texts, and of no others."""

import time
from collections.abc import Iterable

import pytest
from sqlalchemy import Engine

from db import commands, console_commands, dead_letters, outbox
from records import Record
from settings import Settings
from tasks import embed, measured
from telemetry.numbers import FRESHNESS, TALLY, Number
from tests.integration.test_embedding_faults import FAILED, Fickle, fickle, job_ids  # noqa: F401 - a fixture
from tests.samples import LEASE, a_dead_letter, a_record, ask, embedded, persist, run

LONG_AGO = 1_700_000_000_000


@pytest.fixture
def ages(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What is sampled, of every task."""
    found: list[float] = []

    def observe(number: Number, values: Iterable[float], *_labels: str) -> None:
        if number is FRESHNESS:
            found.extend(values)

    monkeypatch.setattr(TALLY, "observe", observe)
    monkeypatch.setattr(measured, "SAMPLE_SECONDS", 0.0)
    return found


def seconds_ago(seconds: float, **others: object) -> Record:
    return a_record("new", (int(1000 * (time.time() - seconds)), 0, 1), **others)  # type: ignore[arg-type]


def an_old_message(database: Engine, message: str = "old") -> str:
    """The id of a message of long ago, after its embedding."""
    record = a_record(message, (LONG_AGO, 0, 0))
    persist(database, record)
    embed.embed_text(job_ids(database))
    return record.id


def embed_and_ask(database: Engine, ages: list[float]) -> list[float]:
    """The ages that are sampled of what waits now."""
    ages.clear()
    embed.embed_text(job_ids(database))
    assert job_ids(database) == []
    return ages


@pytest.mark.parametrize("held", [True, False])
def test_a_new_text_counts_from_its_record_on(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    ages: list[float],
    held: bool,
) -> None:
    with database.begin() as connection:
        lease = LEASE if held else None
        stored = commands.persist(connection, [seconds_ago(100)], reserved_seconds=20, lease=lease)
    embed.embed_text(stored.jobs, stored.texts, held=lease)
    assert ages == [pytest.approx(100, abs=20)]


def test_a_text_that_waited_for_long_counts_from_its_record_on(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    ages: list[float],
) -> None:
    """However its job was tried and split meanwhile."""
    persist(database, seconds_ago(100), seconds_ago(100))
    (job,) = job_ids(database)
    with database.begin() as connection:
        (claimed,) = outbox.claim_jobs(connection, [job], LEASE, 0)
        outbox.split_job(connection, claimed, LEASE)
    assert embed_and_ask(database, ages) == [pytest.approx(100, abs=20)] * 2


def test_a_new_text_of_an_old_message_counts_from_its_record_on(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    ages: list[float],
) -> None:
    persist(database, seconds_ago(100, id=an_old_message(database)))
    assert embed_and_ask(database, ages) == [pytest.approx(100, abs=20)]


def test_a_row_that_somebody_types_counts_from_then_on(database: Engine, fickle: Fickle, ages: list[float]) -> None:  # noqa: F811
    deleted = an_old_message(database)
    run(database, "DELETE FROM text_messages")
    run(database, "DELETE FROM embedding_jobs")
    for message_id in (deleted, a_record("new").id):
        run(database, "INSERT INTO text_messages (id, message) VALUES (CAST(:id AS uuid), 'typed')", id=message_id)
        assert embed_and_ask(database, ages) == [pytest.approx(0, abs=20)]


def test_an_edit_by_hand_is_no_sample(database: Engine, fickle: Fickle, ages: list[float]) -> None:  # noqa: F811
    message_id = an_old_message(database)
    run(database, "UPDATE text_messages SET message = 'edited'")
    assert embed_and_ask(database, ages) == []
    assert embedded(database) == {message_id}


def test_a_retry_of_what_had_failed_is_no_sample(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    ages: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message_id = an_old_message(database, "unembeddable")
    assert len(ask(database, FAILED)) == 1
    with database.begin() as connection:
        console_commands.retry_failures(connection, None, until="infinity", limit=None)
    monkeypatch.setattr(fickle, "embed", super(Fickle, fickle).embed)
    assert embed_and_ask(database, ages) == []
    assert embedded(database) == {message_id}


def test_what_had_lost_its_vector_is_no_sample(database: Engine, fickle: Fickle, ages: list[float]) -> None:  # noqa: F811
    message_id = an_old_message(database)
    run(database, "DELETE FROM message_embeddings")
    with database.begin() as connection:
        assert outbox.queue_missing(connection, None, limit=10) == (1, None)
    assert embed_and_ask(database, ages) == []
    assert embedded(database) == {message_id}


def test_a_replayed_dead_letter_is_no_sample(
    settings: Settings,
    database: Engine,
    fickle: Fickle,  # noqa: F811
    ages: list[float],
) -> None:
    letter = a_dead_letter(7)._replace(topic=settings.kafka_topic)
    with database.begin() as connection:
        dead_letters.note(connection, [letter])
    version = (letter.timestamp, letter.partition, letter.offset)
    record = a_record("mended", version, replayed=(letter.topic, letter.partition, letter.offset))
    persist(database, record)
    assert embed_and_ask(database, ages) == []
    assert embedded(database) == {record.id}
