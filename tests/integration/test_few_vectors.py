"""A few vectors are stored in one round trip: that must leave what the other way leaves, and step back, with nothing
done, from whatever is in the way."""

import psycopg2
import pytest
from sqlalchemy import Engine

from db import commands, embeddings, outbox, session
from db.commands import Stored
from db.embeddings import Embedded
from db.outbox import Job
from tests.samples import LEASE, MODEL, OTHER_LEASE, a_record, ask, embedded, run, statements_seen, vectors_of

VECTORS = """
    SELECT message_id::text, passage_number, passage_start, passage_end, content_hash::text, model, embedding::text
    FROM message_embeddings ORDER BY 1
"""


@pytest.fixture
def stored(database: Engine) -> Stored:
    records = [a_record("one"), a_record("two, of another length"), a_record("grüße \U0001f600")]
    with database.begin() as connection:
        embeddings.register_model(connection, MODEL, 4)
        return commands.persist(connection, records, reserved_seconds=20, lease=LEASE)


def job_of(stored: Stored) -> Job:
    return Job(stored.jobs[0], list(stored.texts), deleted=False, attempts=1)


def few(database: Engine, stored: Stored, *, lease: str = LEASE, model: str = MODEL, job: Job | None = None) -> bool:
    with session.autocommit_connection(database) as connection:
        return embeddings.finish_few(connection, job or job_of(stored), lease, model, vectors_of(stored.texts))


def jobs(database: Engine) -> int:
    return len(ask(database, "SELECT FROM embedding_jobs"))


def test_both_ways_leave_the_same_vectors(database: Engine, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.connect() as connection:
        embeddings.finish_with_vectors(connection, [job_of(stored)], LEASE, MODEL, Embedded(vectors_of(stored.texts)))
        slowly = [dict(row) for row in connection.exec_driver_sql(VECTORS).mappings()]
        connection.rollback()
    statements = statements_seen(monkeypatch)
    assert few(database, stored)
    assert len(statements) == 1
    assert ask(database, VECTORS) == slowly
    assert len(slowly) == 3
    assert jobs(database) == 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE text_messages SET message = 'edited' WHERE message = 'one'",
        "DELETE FROM text_messages WHERE message = 'one'",
        "UPDATE embedding_jobs SET edits = NULL",
        f"UPDATE embedding_jobs SET lease = '{OTHER_LEASE}'",
        "DELETE FROM embedding_jobs",
        "UPDATE embedding_models SET followed_by = 'another'",
        "UPDATE embedding_models SET active = FALSE",
        """INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
           SELECT id, content_hash, 'a model', 'why', 1 FROM text_messages LIMIT 1""",
    ],
)
def test_what_is_in_the_way_leaves_all_to_the_other_way(database: Engine, stored: Stored, statement: str) -> None:
    run(database, statement)
    before = jobs(database)
    assert not few(database, stored)
    assert embedded(database) == set()
    assert jobs(database) == before


def test_another_model_than_the_active_one_stores_nothing(database: Engine, stored: Stored) -> None:
    assert not few(database, stored, model="another")
    assert jobs(database) == 1


def test_a_vector_that_is_there_already_is_told_and_nothing_is_changed(database: Engine, stored: Stored) -> None:
    run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    with database.begin() as connection:
        (claimed,) = outbox.claim_jobs(connection, [stored.jobs[0] + 1], OTHER_LEASE, 60)
        embeddings.finish_with_vectors(connection, [claimed], OTHER_LEASE, MODEL, Embedded(vectors_of(stored.texts)))
    before = ask(database, VECTORS)
    with pytest.raises(psycopg2.IntegrityError):
        few(database, stored)
    assert ask(database, VECTORS) == before
    assert jobs(database) == 1


def test_more_than_a_few_and_parts_of_a_job_are_left_to_the_other_way(database: Engine, stored: Stored) -> None:
    job = job_of(stored)
    assert not few(database, stored, job=Job(job.id, [*job.message_ids, "one more"], deleted=False, attempts=1))
    assert not few(database, stored, job=Job(job.id, job.message_ids, deleted=True, attempts=1))
    many = Stored(stored.jobs, {a_record("x").id: "x" for _ in range(embeddings.FEW)}, all_new=True)
    assert not few(database, many)
    assert jobs(database) == 1
