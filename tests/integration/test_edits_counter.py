"""An embedding job knows how many edits there were before it: without one since, no text is compared when its vectors
are stored; with one, each is, as if there were no count."""

import uuid

import pytest
from sqlalchemy import Engine

from db import commands, outbox
from db.commands import Stored
from db.outbox import Job
from records import Record
from tests.samples import LEASE, MODEL, OTHER_LEASE, a_record, ask, embedded, meanwhile, run, vectors_of


@pytest.fixture
def records() -> list[Record]:
    return [a_record(f"text {number}") for number in range(20)]


def store_texts(database: Engine, records: list[Record], lease: str | None = LEASE, size: int = 500) -> Stored:
    with database.begin() as connection:
        outbox.register_model(connection, MODEL, 4)
        return commands.persist(
            connection, records, reserved_seconds=20, expect_new=True, job_messages=size, lease=lease
        )


def store_vectors(database: Engine, jobs: list[int], texts: dict[str, str], lease: str = LEASE) -> None:
    held = [Job(jobs[0], list(texts), deleted=False, attempts=1)]
    with database.begin() as connection:
        outbox.store_embeddings(connection, held, lease, MODEL, vectors_of(texts), expect_new=True, of_the_jobs=True)


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were compared, each time that it was done."""
    found: list[int] = []
    settle = outbox.settle

    def counted(connection: object, jobs: object, model: str, vectors: outbox.Vectors, *more: object, **others: object):  # type: ignore[no-untyped-def]
        found.append(len(vectors.message_ids))
        return settle(connection, jobs, model, vectors, *more, **others)  # type: ignore[arg-type]

    monkeypatch.setattr(outbox, "settle", counted)
    return found


def test_without_an_edit_nothing_is_compared(database: Engine, records: list[Record], compared: list[int]) -> None:
    stored = store_texts(database, records)
    store_texts(database, [a_record("one more") for _ in range(20)], OTHER_LEASE)  # what is new is no edit
    store_vectors(database, stored.jobs, stored.texts)
    assert compared == []
    assert embedded(database) == stored.texts.keys()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE text_messages SET message = 'edited' WHERE id = :id ::uuid",
        "UPDATE text_messages SET id = gen_random_uuid() WHERE id = :id ::uuid",
        "DELETE FROM text_messages WHERE id = :id ::uuid",
    ],
)
def test_what_was_edited_since_gets_no_vector_of_its_old_text(
    database: Engine, records: list[Record], compared: list[int], statement: str
) -> None:
    stored = store_texts(database, records)
    run(database, statement, id=records[7].id)
    store_vectors(database, stored.jobs, stored.texts)
    assert compared == [20]
    assert embedded(database) == stored.texts.keys() - {records[7].id}


def test_an_edit_of_before_the_job_counts_as_none(database: Engine, records: list[Record], compared: list[int]) -> None:
    store_texts(database, records)
    edited = [record._replace(message=f"{record.message}, edited", offset=99) for record in records]
    again = store_texts(database, edited, OTHER_LEASE)
    store_vectors(database, again.jobs, again.texts, OTHER_LEASE)
    assert compared == []
    assert embedded(database) == again.texts.keys()


def test_an_edit_that_is_not_committed_yet_is_known(
    database: Engine, records: list[Record], compared: list[int]
) -> None:
    stored = store_texts(database, records)
    with database.connect() as connection:
        connection.exec_driver_sql(f"UPDATE text_messages SET message = 'edited' WHERE id = '{records[7].id}'")
        store_vectors(database, stored.jobs, stored.texts)
        connection.commit()
    assert compared == [20]
    assert embedded(database) == stored.texts.keys() - {records[7].id}, "the old one answers no search"


def test_a_job_of_an_older_release_has_no_number_and_is_compared(
    database: Engine, records: list[Record], compared: list[int]
) -> None:
    stored = store_texts(database, records)
    run(database, "UPDATE embedding_jobs SET edits = NULL")
    store_vectors(database, stored.jobs, stored.texts)
    assert compared == [20]
    assert embedded(database) == stored.texts.keys()


def test_an_edit_while_a_job_is_written_comes_after_it(database: Engine, records: list[Record]) -> None:
    """Two edits of the same rows: the second waits for the first one's transaction, and so has a higher number than the
    first one's job, however early it began."""
    store_texts(database, records)
    run(database, "DELETE FROM embedding_jobs")
    with database.connect() as first:
        first.exec_driver_sql("UPDATE text_messages SET message = message || ' once'")
        with meanwhile(lambda: run(database, "UPDATE text_messages SET message = message || ' twice'")):
            first.commit()
    older, newer = ask(database, "SELECT edits FROM embedding_jobs ORDER BY id")
    assert older["edits"] < newer["edits"]
    (last,) = ask(database, "SELECT last_value FROM text_messages_edits")
    assert newer["edits"] == last["last_value"]


def test_a_large_batch_is_held_from_the_beginning_too(database: Engine, records: list[Record]) -> None:
    stored = store_texts(database, records)
    assert stored.held
    (job,) = ask(database, "SELECT lease::text, attempts FROM embedding_jobs")
    assert job == {"lease": LEASE, "attempts": 0}


def test_several_jobs_are_free_to_be_claimed(database: Engine, records: list[Record]) -> None:
    stored = store_texts(database, records, size=8)
    assert not stored.held
    assert len(stored.jobs) == 3
    with database.begin() as connection:
        assert len(outbox.claim_jobs(connection, stored.jobs, str(uuid.uuid4()), 60)) == 3
