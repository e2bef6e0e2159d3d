"""An embedding job knows how many edits there were before it: without one since, no text is compared when its vectors
are stored; with one, each is, as if there were no count."""

import uuid
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import Connection, Engine

from db import commands, console_commands, embeddings, outbox
from db.commands import Stored
from db.embeddings import Embedded, Vectors
from db.outbox import Job
from records import Record
from tasks import embed, persist, resources, task_texts
from tasks.embed import finish
from tests.integration.test_embedding_faults import Fickle, fickle  # noqa: F401 - a fixture
from tests.samples import LEASE, MODEL, OTHER_LEASE, a_record, ask, embedded, meanwhile, run, vectors_of


@pytest.fixture
def records() -> list[Record]:
    return [a_record(f"text {number}") for number in range(20)]


def store_texts(
    database: Engine, records: list[Record], lease: str | None = LEASE, size: int = 500, *, new: bool = True
) -> Stored:
    with database.begin() as connection:
        embeddings.register_model(connection, MODEL, 4)
        return commands.persist(
            connection, records, reserved_seconds=20, expect_new=new, job_messages=size, lease=lease
        )


def store_vectors(database: Engine, jobs: list[int], texts: dict[str, str], lease: str = LEASE) -> None:
    held = [Job(jobs[0], list(texts), deleted=False, attempts=1)]
    with database.begin() as connection:
        embeddings.finish_with_vectors(
            connection, held, lease, MODEL, Embedded(vectors_of(texts)), expect_new=True, of_the_jobs=True
        )


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts were compared, each time that it was done."""
    found: list[int] = []
    settle = embeddings.settle

    def counted(connection: Connection, jobs: Sequence[Job], model: str, done: Embedded, *, is_second: bool) -> Vectors:
        found.append(len(done.vectors.message_ids))
        return settle(connection, jobs, model, done, is_second=is_second)

    monkeypatch.setattr(embeddings, "settle", counted)
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
    again = store_texts(database, edited, OTHER_LEASE, new=False)
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


def test_a_numbered_job_does_not_speak_for_one_without(
    database: Engine, records: list[Record], compared: list[int]
) -> None:
    stored = store_texts(database, records)
    more = store_texts(database, [a_record("one more")])
    run(database, "UPDATE embedding_jobs SET edits = NULL WHERE id = :id", id=stored.jobs[0])
    held = [Job(each.jobs[0], list(each.texts), deleted=False, attempts=1) for each in (stored, more)]
    with database.begin() as connection:
        embeddings.finish_with_vectors(
            connection,
            held,
            LEASE,
            MODEL,
            Embedded(vectors_of(stored.texts | more.texts)),
            expect_new=True,
            of_the_jobs=True,
        )
    assert compared == [21]


def test_what_collides_with_a_vector_is_compared_when_it_is_done_again(
    database: Engine, records: list[Record], compared: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "engine", lambda: database)
    stored = store_texts(database, records)
    run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    (other,) = {each["id"] for each in ask(database, "SELECT id FROM embedding_jobs")} - set(stored.jobs)
    with database.begin() as connection:
        (claimed,) = outbox.claim_jobs(connection, [other], OTHER_LEASE, 60)
        embeddings.finish_with_vectors(connection, [claimed], OTHER_LEASE, MODEL, Embedded(vectors_of(stored.texts)))
    held = [Job(stored.jobs[0], list(stored.texts), deleted=False, attempts=1)]
    done = Embedded(vectors_of(stored.texts))
    compared.clear()
    finish(held, LEASE, MODEL, done, is_active_model=False, of_the_jobs=True)
    assert compared == [20]
    assert embedded(database) == stored.texts.keys()
    assert ask(database, "SELECT FROM embedding_jobs") == []


@pytest.mark.parametrize("count", [3, 20])
def test_what_came_again_unchanged_is_not_embedded_again(
    database: Engine,
    count: int,
    fickle: Fickle,  # noqa: F811
) -> None:
    records = [a_record(f"text {number}") for number in range(count)]

    def send() -> persist.Outcome:
        outcome = persist.Outcome()
        persist.store_or_halve(dict(enumerate(records)), outcome, 20.0, 1_000)
        for job, messages in outcome.jobs.items():
            texts = {message_id: outcome.texts[message_id] for message_id in messages}
            embed.embed_text([job], texts, held=outcome.held.get(job))
        return outcome

    def vectors() -> dict[str, int]:
        found = ask(database, "SELECT message_id::text AS message_id, id FROM message_embeddings")
        return {each["message_id"]: each["id"] for each in found}

    send()
    before = vectors()
    assert len(before) == count
    records = [record._replace(offset=record.offset + 100) for record in records]
    records[1] = records[1]._replace(message="edited")
    outcome = send()
    assert outcome.texts.keys() == before.keys()
    assert list(outcome.jobs.values()) == [[records[1].id]]
    after = vectors()
    assert {message_id for message_id in after if after[message_id] != before[message_id]} == {records[1].id}
    assert ask(database, "SELECT FROM embedding_jobs") == []


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


TYPED = """INSERT INTO text_messages (id, message)
    SELECT gen_random_uuid(), 'typed ' || n FROM generate_series(1, 20) AS n"""


def swept(database: Engine) -> list[int]:
    """The jobs, as the sweep hands them on: without their texts."""
    with database.begin() as connection:
        return [job for job, *_ in outbox.take_waiting_jobs(connection, messages=1_000, task=100, seconds=20, small=50)]


def test_what_the_sweep_hands_on_is_not_compared_either(
    database: Engine,
    compared: list[int],
    fickle: Fickle,  # noqa: F811
) -> None:
    run(database, TYPED)
    embed.embed_text(swept(database))
    assert compared == []
    assert len(embedded(database)) == 20
    assert ask(database, "SELECT FROM embedding_jobs") == []


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("UPDATE text_messages SET message = 'edited' WHERE message = 'typed 7'", 19),
        ("UPDATE text_messages SET id = gen_random_uuid() WHERE message = 'typed 7'", 19),
        ("DELETE FROM text_messages WHERE message = 'typed 7'", 19),
        ("TRUNCATE text_messages CASCADE", 0),
    ],
)
def test_what_changes_after_a_swept_text_was_read_is_seen(
    database: Engine,
    compared: list[int],
    monkeypatch: pytest.MonkeyPatch,
    fickle: Fickle,  # noqa: F811
    statement: str,
    left: int,
) -> None:
    run(database, TYPED)
    read = task_texts.current_texts

    def read_and_change(*given: object) -> task_texts.TaskTexts:
        found = read(*given)  # type: ignore[arg-type]
        run(database, statement)
        return found

    monkeypatch.setattr(embed, "current_texts", read_and_change)
    embed.embed_text(swept(database))
    assert len(embedded(database)) == left
    if left:
        assert compared == [20]


def test_a_vector_that_slips_in_behind_a_changed_id_goes_at_the_second_look(
    database: Engine,
    fickle: Fickle,  # noqa: F811
) -> None:
    run(database, TYPED)
    with database.connect() as connection:
        connection.exec_driver_sql("UPDATE text_messages SET id = gen_random_uuid() WHERE message = 'typed 7'")
        embed.embed_text(swept(database))
        connection.commit()
    run(database, "UPDATE embedding_jobs SET available_at = now()")
    embed.embed_text(swept(database))
    found = {each["id"] for each in ask(database, "SELECT message_id::text AS id FROM message_embeddings")}
    assert found == {each["id"] for each in ask(database, "SELECT id::text FROM text_messages")}
    assert len(found) == 20


@pytest.mark.parametrize(
    "retry",
    [
        lambda connection: console_commands.retry_failures(connection, None, until="infinity", limit=None),
        lambda connection: (
            connection.exec_driver_sql("SELECT queue_embedding(array_agg(id)) FROM text_messages") and 20
        ),
        lambda connection: console_commands.retry_failures(
            connection, None, until=console_commands.now(connection), limit=100
        ),
    ],
    ids=["all", "by hand", "by the console"],
)
def test_a_job_that_is_queued_again_has_no_number(
    database: Engine,
    records: list[Record],
    compared: list[int],
    fickle: Fickle,  # noqa: F811
    retry: Callable[[Connection], int],
) -> None:
    store_texts(database, records)
    run(database, "DELETE FROM embedding_jobs")
    run(
        database,
        """INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
           SELECT m.id, m.content_hash, a.name, 'broken', 1 FROM text_messages m, embedding_models a WHERE a.active""",
    )
    with database.begin() as connection:
        assert retry(connection) == 20
    (job,) = ask(database, "SELECT edits, lease, cardinality(message_ids) AS size FROM embedding_jobs")
    assert job == {"edits": None, "lease": None, "size": 20}
    embed.embed_text(swept(database))
    assert compared == [20]


def test_halves_of_a_job_keep_its_number(database: Engine, records: list[Record]) -> None:
    stored = store_texts(database, records)
    (before,) = ask(database, "SELECT edits FROM embedding_jobs")
    run(database, "UPDATE text_messages SET message = 'edited' WHERE id = :id ::uuid", id=records[7].id)
    with database.begin() as connection:
        outbox.split_job(connection, Job(stored.jobs[0], list(stored.texts), deleted=False, attempts=3), LEASE)
    halves = ask(database, "SELECT edits FROM embedding_jobs WHERE cardinality(message_ids) = 10")
    assert halves == [before, before]


def test_texts_that_came_with_a_task_which_has_to_claim_are_compared(
    database: Engine,
    compared: list[int],
    fickle: Fickle,  # noqa: F811
) -> None:
    """They may be those of another job, where the tables were made anew. What is queued again then has no number."""
    run(database, TYPED)
    texts = {each["id"]: "another text" for each in ask(database, "SELECT id::text FROM text_messages")}
    embed.embed_text(swept(database), texts)
    assert compared == [20]
    assert embedded(database) == set()
    assert ask(database, "SELECT edits, cardinality(message_ids) AS size FROM embedding_jobs") == [
        {"edits": None, "size": 20}
    ]


def test_texts_for_another_model_are_compared(
    database: Engine,
    monkeypatch: pytest.MonkeyPatch,
    fickle: Fickle,  # noqa: F811
) -> None:
    """Its jobs are queued without their messages' rows."""
    asked: list[bool] = []
    monkeypatch.setattr(resources, "second_embedder", lambda _: resources.embedder())
    monkeypatch.setattr(embed, "finish", lambda *_, of_the_jobs, **__: asked.append(of_the_jobs))
    run(database, TYPED)
    embed.embed_text(swept(database), model="another")
    assert asked == [False]
