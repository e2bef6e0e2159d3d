"""The outbox: who changes a text drops its vectors and queues a job, and only current vectors are ever stored."""

import uuid

import numpy as np
import psycopg2
import pytest
from sqlalchemy import Engine, TextClause, text

from db import command_line, commands, embeddings, outbox, queries, vector_search
from db.command_line import retry_failed
from db.embeddings import Embedded
from db.outbox import Job
from settings import Settings
from tests.samples import (
    LEASE,
    MODEL,
    OTHER_LEASE,
    a_record,
    ask,
    content_hash,
    embed,
    embedded,
    meanwhile,
    persist,
    row,
    run,
    vectors_of,
    wait_until_blocked,
)


def queued(engine: Engine, *, deleted: bool = False) -> list[str]:
    found = ask(
        engine,
        "SELECT unnest(message_ids)::text AS id FROM embedding_jobs WHERE deleted = :deleted ORDER BY 1",
        deleted=deleted,
    )
    return [each["id"] for each in found]


def job_ids(engine: Engine) -> list[int]:
    return [each["id"] for each in ask(engine, "SELECT id FROM embedding_jobs ORDER BY id")]


def claim(engine: Engine, jobs: list[int], lease: str = LEASE, seconds: float = 60) -> list[Job]:
    with engine.begin() as connection:
        return outbox.claim_jobs(connection, jobs, lease, seconds)


def store(engine: Engine, jobs: list[Job], texts: dict[str, str], lease: str = LEASE) -> None:
    with engine.begin() as connection:
        embeddings.finish_with_vectors(connection, jobs, lease, MODEL, Embedded(vectors_of(texts)))


@pytest.fixture
def message(database: Engine) -> str:
    """The id of a stored message with the text "one", whose job waits."""
    record = a_record("one")
    persist(database, record)
    return record.id


@pytest.fixture
def ready(database: Engine, message: str) -> str:
    """The id of a stored message with the text "one" and its vector."""
    embed(database, {message: "one"})
    assert embedded(database) == {message}
    return message


class TestTriggers:
    def test_an_insert_queues_every_row_in_jobs_of_up_to_500(self, database: Engine) -> None:
        run(
            database,
            "INSERT INTO text_messages (id, message) SELECT gen_random_uuid(), n::text FROM generate_series(1, 1100) n",
        )
        sizes = ask(database, "SELECT cardinality(message_ids) AS size FROM embedding_jobs ORDER BY id")
        assert sorted(each["size"] for each in sizes) == [100, 500, 500]
        assert len(set(queued(database))) == 1100

    def test_an_edit_drops_the_vector_and_queues_at_once(self, database: Engine, ready: str) -> None:
        run(database, "UPDATE text_messages SET message = 'two'")
        assert ask(database, "SELECT message_id FROM message_embeddings") == []
        assert queued(database) == [ready]

    @pytest.mark.parametrize("statement", ["message = message", "metadata = '{}'", "processed_at = now()"])
    def test_an_update_that_keeps_the_text_keeps_the_vector(self, database: Engine, ready: str, statement: str) -> None:
        run(database, f"UPDATE text_messages SET {statement}")
        assert embedded(database) == {ready}
        assert queued(database) == []

    @pytest.mark.parametrize("statement", ["DELETE FROM text_messages", "TRUNCATE text_messages"])
    def test_a_delete_drops_the_vector_and_looks_again_later(
        self, database: Engine, ready: str, statement: str
    ) -> None:
        run(database, statement)
        assert ask(database, "SELECT message_id FROM message_embeddings") == []
        assert queued(database) == []
        assert queued(database, deleted=True) == [ready]
        later = ask(database, "SELECT available_at - now() BETWEEN '20 s' AND '40 s' AS later FROM embedding_jobs")
        assert later == [{"later": True}]

    def test_a_changed_id_is_a_new_message(self, database: Engine, ready: str) -> None:
        new = str(uuid.uuid4())
        run(database, "UPDATE text_messages SET id = CAST(:new AS uuid)", new=new)
        assert ask(database, "SELECT message_id FROM message_embeddings") == []
        assert queued(database) == [new]
        assert queued(database, deleted=True) == [ready]

    def test_a_statement_without_rows_queues_nothing(self, database: Engine) -> None:
        run(database, "UPDATE text_messages SET message = 'x'")
        run(database, "DELETE FROM text_messages")
        run(database, "TRUNCATE text_messages")
        assert job_ids(database) == []

    def test_what_is_rolled_back_queues_nothing(self, database: Engine, ready: str) -> None:
        with database.connect() as connection:
            connection.execute(text("UPDATE text_messages SET message = 'two'"))
            connection.rollback()
        assert embedded(database) == {ready}
        assert queued(database) == []


class TestPersisting:
    def test_it_returns_its_own_jobs_and_keeps_the_sweep_off_them(self, database: Engine) -> None:
        run(database, "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), 'typed before')")
        before = job_ids(database)
        records = [a_record(f"text {number}", (1, 0, number)) for number in range(700)]
        stored = persist(database, *records, reserved_seconds=60)
        assert sorted([*before, *stored.jobs]) == job_ids(database)
        assert stored.texts.keys() == {record.id for record in records}
        with database.begin() as connection:
            waiting = outbox.take_waiting_jobs(connection, messages=10_000, task=100, seconds=60, small=50)
        assert [job.id for job in waiting] == before

    def test_a_job_takes_as_many_messages_as_it_is_told_to(self, database: Engine) -> None:
        records = [a_record(f"text {number}", (1, 0, number)) for number in range(250)]
        with database.begin() as connection:
            stored = commands.persist(connection, records, reserved_seconds=60, job_messages=100)
            found = outbox.messages_of(connection, stored.jobs, LEASE)
        assert not any(held for _, held in found.values())
        messages = {job: ids for job, (ids, _) in found.items()}
        assert sorted(map(len, messages.values())) == [50, 100, 100]
        assert {message_id for ids in messages.values() for message_id in ids} == {record.id for record in records}
        run(database, "UPDATE text_messages SET message = message || ' by hand'")
        by_hand = [job for job in job_ids(database) if job not in messages]
        with database.connect() as connection:
            assert [len(ids) for ids, _ in outbox.messages_of(connection, by_hand, None).values()] == [250]

    def test_unreserved_jobs_wait_for_the_sweep(self, database: Engine) -> None:
        assert persist(database, a_record("one")).jobs == []
        with database.begin() as connection:
            assert len(outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50)) == 1

    def test_the_reservation_ends(self, database: Engine) -> None:
        persist(database, a_record("one"), reserved_seconds=0.001)
        with database.begin() as connection:
            assert len(outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50)) == 1

    def test_rows_typed_on_the_same_connection_later_are_not_collected(self, database: Engine) -> None:
        with database.connect() as connection:
            commands.persist(connection, [a_record("one")], reserved_seconds=60)
            connection.commit()
            connection.execute(text("INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), 'typed')"))
            connection.commit()
            assert len(outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50)) == 1


class TestClaims:
    def test_a_job_has_one_owner_until_its_lease_has_run_out(self, database: Engine, message: str) -> None:
        jobs = job_ids(database)
        assert [job.message_ids for job in claim(database, jobs)] == [[message]]
        assert claim(database, jobs, OTHER_LEASE) == []
        run(database, "UPDATE embedding_jobs SET available_at = now() - INTERVAL '1 s'")
        assert [job.attempts for job in claim(database, jobs, OTHER_LEASE)] == [2]
        assert claim(database, jobs) == []
        run(database, "UPDATE embedding_jobs SET available_at = now() + INTERVAL '1 h'")
        assert [job.attempts for job in claim(database, jobs)] == [3], "PostgreSQL's clock was set back"

    def test_claiming_again_renews_and_counts_no_attempt(self, database: Engine, message: str) -> None:
        jobs = job_ids(database)
        claim(database, jobs, seconds=0.001)
        assert [job.attempts for job in claim(database, jobs, seconds=60)] == [1]
        assert claim(database, jobs, OTHER_LEASE) == []

    def test_claiming_again_after_an_outage_counts_no_attempt_whoever_had_the_job_meanwhile(
        self, database: Engine, message: str
    ) -> None:
        jobs = job_ids(database)
        claim(database, jobs, seconds=0.001)
        with database.begin() as connection:
            assert len(outbox.take_waiting_jobs(connection, messages=1, task=1, seconds=60, small=50)) == 1
            assert [job.attempts for job in outbox.claim_jobs(connection, jobs, LEASE, 60, counts=False)] == [1]

    def test_a_job_that_somebody_is_just_claiming_is_not_waited_for(self, database: Engine, message: str) -> None:
        with database.connect() as connection:
            assert len(outbox.claim_jobs(connection, job_ids(database), LEASE, 60)) == 1
            assert claim(database, job_ids(database), OTHER_LEASE) == []
            connection.rollback()

    def test_jobs_that_are_done_or_never_were_are_not_claimed(self, database: Engine, ready: str) -> None:
        assert claim(database, [1, 2, 10**18]) == []
        assert claim(database, []) == []

    def test_a_released_job_is_free_after_its_pause_and_its_attempt_does_not_count(
        self, database: Engine, message: str
    ) -> None:
        jobs = job_ids(database)
        claim(database, jobs)
        with database.begin() as connection:
            outbox.release_jobs(connection, jobs, OTHER_LEASE, seconds=0)
        assert claim(database, jobs, OTHER_LEASE) == [], "released by somebody who had no lease"
        with database.begin() as connection:
            outbox.release_jobs(connection, jobs, LEASE, seconds=0)
        assert [job.attempts for job in claim(database, jobs, OTHER_LEASE)] == [1]

    def test_the_sweep_takes_the_oldest_up_to_its_measure(self, database: Engine) -> None:
        for start in range(0, 50, 10):
            persist(database, *(a_record(f"text {start + number}", (1, 0, number)) for number in range(10)))
        jobs = job_ids(database)
        with database.begin() as connection:
            assert outbox.take_waiting_jobs(connection, messages=25, task=100, seconds=60, small=50) == [
                (job, 10, 10) for job in jobs[:3]
            ]
        with database.begin() as connection:
            assert outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50) == [
                (job, 10, 10) for job in jobs[3:]
            ]
        with database.begin() as connection:
            assert outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50) == []
        assert len(claim(database, jobs)) == 5, "what the sweep has reserved is there for whom it sends"

    def test_a_job_is_halved_until_each_message_is_alone(self, database: Engine) -> None:
        records = [a_record(f"text {number}", (1, 0, number)) for number in range(5)]
        persist(database, *records)
        sizes = set()
        for _ in range(4):
            for job in claim(database, job_ids(database)):
                sizes.add(len(job.message_ids))
                if len(job.message_ids) > 1:
                    with database.begin() as connection:
                        outbox.split_job(connection, job, OTHER_LEASE)  # not its owner: nothing happens
                        outbox.split_job(connection, job, LEASE)
        assert sizes == {5, 2, 3, 1}
        assert [len(job.message_ids) for job in claim(database, job_ids(database))] == [1] * 5
        assert queued(database) == sorted(record.id for record in records)


class TestStoring:
    def test_vectors_are_stored_and_their_jobs_done(self, database: Engine) -> None:
        texts = {str(uuid.uuid4()): f"text {number}" for number in range(3)}
        persist(database, *(a_record(message, id=each) for each, message in texts.items()))
        embed(database, texts)
        assert embedded(database) == set(texts)
        assert job_ids(database) == []
        found = ask(
            database, "SELECT embedding::text AS vector, model, passage_end FROM message_embeddings ORDER BY vector"
        )
        assert [each["vector"] for each in found] == ["[1,0,0,0]", "[1,0,0,1]", "[1,0,0,2]"]
        assert {(each["model"], each["passage_end"]) for each in found} == {(MODEL, 6)}

    def test_a_text_edited_meanwhile_gets_no_stale_vector(self, database: Engine, message: str) -> None:
        claimed = claim(database, job_ids(database))
        run(database, "UPDATE text_messages SET message = 'two'")
        store(database, claimed, {message: "one"})
        assert ask(database, "SELECT message_id FROM message_embeddings") == []
        assert queued(database) == [message], "the edit has a job of its own"
        embed(database, {message: "two"})
        assert embedded(database) == {message}

    def test_a_message_deleted_meanwhile_gets_no_vector(self, database: Engine, message: str) -> None:
        claimed = claim(database, job_ids(database))
        run(database, "DELETE FROM text_messages")
        store(database, claimed, {message: "one"})
        assert ask(database, "SELECT message_id FROM message_embeddings") == []

    def test_an_edit_that_commits_while_vectors_are_written_leaves_none_that_counts(
        self, database: Engine, message: str
    ) -> None:
        claimed = claim(database, job_ids(database))
        with database.connect() as connection:
            embeddings.finish_with_vectors(connection, claimed, LEASE, MODEL, Embedded(vectors_of({message: "one"})))
            run(database, "UPDATE text_messages SET message = 'two'")
            connection.commit()
        assert embedded(database) == set()
        with database.connect() as connection:
            assert vector_search.semantic(connection, Settings(), [1, 0, 0, 0], MODEL, limit=10) == []
            found = queries.message(connection, message)
        assert found is not None
        assert found["embedding"] == "pending"
        embed(database, {message: "two"})
        assert embedded(database) == {message}
        assert len(ask(database, "SELECT FROM message_embeddings")) == 1

    def test_from_the_edit_on_the_old_vector_answers_no_search(self, database: Engine, ready: str) -> None:
        with database.connect() as connection:
            assert [
                hit["id"] for hit in vector_search.semantic(connection, Settings(), [1, 0, 0, 0], MODEL, limit=10)
            ] == [ready]
        run(database, "UPDATE text_messages SET message = 'two'")
        with database.connect() as connection:
            assert vector_search.semantic(connection, Settings(), [1, 0, 0, 0], MODEL, limit=10) == []

    @pytest.mark.parametrize("min_score", [None, 0.9])
    def test_a_vector_of_zeros_is_near_nothing(self, database: Engine, ready: str, min_score: float | None) -> None:
        run(database, "UPDATE message_embeddings SET embedding = '[0, 0, 0, 0]'")
        with database.connect() as connection:
            asked = [1.0, 0.0, 0.0, 0.0]
            assert vector_search.semantic(connection, Settings(), asked, MODEL, limit=10, min_score=min_score) == []

    def test_vectors_of_an_older_try_are_replaced(self, database: Engine, ready: str) -> None:
        run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
        embed(database, {ready: "one"}, OTHER_LEASE)
        assert len(ask(database, "SELECT FROM message_embeddings")) == 1

    def test_a_vector_that_was_not_expected_is_refused_with_all_that_came_with_it(
        self, database: Engine, ready: str
    ) -> None:
        run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
        claimed = claim(database, job_ids(database))
        with pytest.raises(psycopg2.errors.UniqueViolation), database.begin() as connection:
            embeddings.finish_with_vectors(
                connection, claimed, LEASE, MODEL, Embedded(vectors_of({ready: "one"})), expect_new=True
            )
        assert job_ids(database) == [claimed[0].id]
        store(database, claimed, {ready: "one"})
        assert job_ids(database) == []
        assert len(ask(database, "SELECT FROM message_embeddings")) == 1

    def test_who_has_lost_the_lease_writes_nothing(self, database: Engine, message: str) -> None:
        slow = claim(database, job_ids(database), LEASE, 0)
        quick = claim(database, job_ids(database), OTHER_LEASE)
        assert len(quick) == 1
        with pytest.raises(outbox.LeaseLost):
            store(database, slow, {message: "one"})
        assert embedded(database) == set()
        store(database, quick, {message: "one"}, OTHER_LEASE)
        assert embedded(database) == {message}
        with pytest.raises(outbox.LeaseLost):
            store(database, quick, {message: "one"}, OTHER_LEASE)

    def test_of_two_workers_with_the_same_message_the_second_replaces_in_another_try_what_the_first_wrote(
        self, database: Engine, message: str
    ) -> None:
        with database.begin() as connection:
            embeddings.register_model(connection, MODEL, 4)
        run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
        first, second = job_ids(database)
        ours, theirs = claim(database, [first]), claim(database, [second], OTHER_LEASE)

        def in_two_tries() -> None:
            with pytest.raises(psycopg2.errors.UniqueViolation):
                store(database, theirs, {message: "one"}, OTHER_LEASE)
            store(database, theirs, {message: "one"}, OTHER_LEASE)

        with database.connect() as connection:
            embeddings.finish_with_vectors(connection, ours, LEASE, MODEL, Embedded(vectors_of({message: "one"})))
            with meanwhile(in_two_tries):
                wait_until_blocked(database)
                connection.commit()
        assert job_ids(database) == []
        assert len(ask(database, "SELECT FROM message_embeddings")) == 1

    def test_the_second_look_at_a_deletion_clears_what_a_slow_worker_left(self, database: Engine, message: str) -> None:
        claimed = claim(database, job_ids(database))
        with database.connect() as connection:
            embeddings.finish_with_vectors(connection, claimed, LEASE, MODEL, Embedded(vectors_of({message: "one"})))
            run(database, "DELETE FROM text_messages")
            connection.commit()
        assert len(ask(database, "SELECT FROM message_embeddings")) == 1, "the race that this test is about"
        embed(database, {})
        assert ask(database, "SELECT FROM message_embeddings") == []
        assert job_ids(database) == []

    def test_halves_are_as_the_model_gave_them(self, database: Engine, message: str) -> None:
        numbers = np.array([[0.1, -65504, 6e-8, 0]], dtype=np.float32)
        vectors = embeddings.Vectors([uuid.UUID(message).bytes], [content_hash("one")], [0], [(0, 3)], numbers)
        claimed = claim(database, job_ids(database))
        with database.begin() as connection:
            embeddings.finish_with_vectors(connection, claimed, LEASE, "modèle", Embedded(vectors))
        found = ask(database, "SELECT embedding::real[] AS vector, model FROM message_embeddings")
        assert np.array_equal(np.array(found[0]["vector"], dtype=np.float16), numbers[0].astype(np.float16))
        assert found[0]["model"] == "modèle"


class TestFailures:
    def fail(self, engine: Engine, message_id: str, message: str, jobs: list[int] | None = None) -> None:
        claimed = claim(engine, job_ids(engine) if jobs is None else jobs)
        failure = (message_id, str(uuid.UUID(bytes=content_hash(message))), "the model said no")
        with engine.begin() as connection:
            embeddings.finish_with_vectors(
                connection, claimed, LEASE, MODEL, Embedded(embeddings.NO_VECTORS, [failure])
            )

    def state(self, engine: Engine, message_id: str) -> str:
        with engine.connect() as connection:
            found = queries.message(connection, message_id)
        assert found is not None
        return str(found["embedding"])

    def test_a_failure_is_kept_with_its_reason_and_can_be_retried(
        self, settings: Settings, database: Engine, message: str
    ) -> None:
        self.fail(database, message, "one")
        assert self.state(database, message) == "failed"
        kept = ask(database, "SELECT reason, attempts, model FROM embedding_failures")
        assert kept == [{"reason": "the model said no", "attempts": 1, "model": MODEL}]
        assert job_ids(database) == []
        assert retry_failed(settings) == 1
        assert retry_failed(settings) == 0
        assert self.state(database, message) == "pending"
        assert queued(database) == [message]

    def test_a_failure_of_an_older_text_is_not_kept(self, database: Engine, message: str) -> None:
        run(database, "UPDATE text_messages SET message = 'two'")
        self.fail(database, message, "one")
        assert ask(database, "SELECT FROM embedding_failures") == []

    @pytest.mark.parametrize("statement", ["UPDATE text_messages SET message = 'two'", "DELETE FROM text_messages"])
    def test_an_edit_or_a_delete_forgets_it(self, database: Engine, message: str, statement: str) -> None:
        self.fail(database, message, "one")
        run(database, statement)
        assert ask(database, "SELECT FROM embedding_failures") == []

    def test_that_of_what_came_again_outlives_the_second_look_at_a_deletion(
        self, database: Engine, message: str
    ) -> None:
        run(database, "DELETE FROM text_messages")
        persist(database, a_record("one", (1_700_000_000_001, 0, 1), id=message))
        later, now = (
            [each["id"] for each in ask(database, "SELECT id FROM embedding_jobs WHERE deleted = :it", it=deleted)]
            for deleted in (True, False)
        )
        self.fail(database, message, "one", now)
        store(database, claim(database, later, OTHER_LEASE), {}, OTHER_LEASE)
        assert job_ids(database) == []
        assert self.state(database, message) == "failed"

    def test_one_that_comes_late_has_the_present_text_tried_again(self, database: Engine, message: str) -> None:
        """It takes the mark of the present text with it."""
        old = claim(database, job_ids(database))
        run(database, "UPDATE text_messages SET message = 'two'")
        new = [job for job in job_ids(database) if job != old[0].id]
        failures = {text: (message, str(uuid.UUID(bytes=content_hash(text))), "no") for text in ("one", "two")}
        for jobs, lease, said in ((claim(database, new, OTHER_LEASE), OTHER_LEASE, "two"), (old, LEASE, "one")):
            with database.begin() as connection:
                done = Embedded(embeddings.NO_VECTORS, [failures[said]])
                embeddings.finish_with_vectors(connection, jobs, lease, MODEL, done)
        assert queued(database) == [message]


class TestModels:
    def test_the_first_model_is_the_active_one(self, database: Engine) -> None:
        with database.begin() as connection:
            assert embeddings.register_model(connection, "first", 4) == "first"
            assert embeddings.register_model(connection, "first", 4) == "first"
            assert embeddings.register_model(connection, "second", 8) == "first"


def test_an_older_embedding_that_ends_late_leaves_the_vector_of_the_newer_text_alone(database: Engine) -> None:
    record = a_record("first")
    persist(database, record)
    (old_job,) = [job["id"] for job in ask(database, "SELECT id FROM embedding_jobs")]
    with database.begin() as connection:
        claimed = outbox.claim_jobs(connection, [old_job], LEASE, 60)
    newer = record._replace(message="second", offset=1)
    persist(database, newer)
    embed(database, {record.id: "second"}, OTHER_LEASE)
    with database.begin() as connection:
        embeddings.finish_with_vectors(connection, claimed, LEASE, MODEL, Embedded(vectors_of({record.id: "first"})))
    assert embedded(database) == {record.id}


def test_an_id_changed_by_hand_is_a_deletion_of_the_old_one(database: Engine) -> None:
    record = a_record("text")
    persist(database, record)
    other = str(uuid.uuid4())
    run(
        database,
        "UPDATE text_messages SET id = CAST(:new AS uuid) WHERE id = CAST(:old AS uuid)",
        new=other,
        old=record.id,
    )
    persist(database, record)
    assert row(database, record.id) is None
    assert row(database, other) is not None


def test_a_split_job_stays_what_it_was(database: Engine) -> None:
    records = [a_record(f"text {number}") for number in range(4)]
    persist(database, *records)
    run(database, "DELETE FROM text_messages")
    run(database, "UPDATE embedding_jobs SET available_at = now()")
    (job,) = [each["id"] for each in ask(database, "SELECT id FROM embedding_jobs WHERE deleted")]
    with database.begin() as connection:
        (claimed,) = outbox.claim_jobs(connection, [job], LEASE, 60)
        outbox.split_job(connection, claimed, LEASE)
    halves = ask(database, "SELECT deleted, cardinality(message_ids) AS size FROM embedding_jobs WHERE deleted")
    assert halves == [{"deleted": True, "size": 2}] * 2


def test_the_sweep_reads_no_more_of_a_backlog_than_it_takes(database: Engine) -> None:
    run(
        database,
        "INSERT INTO embedding_jobs (message_ids) SELECT ARRAY[gen_random_uuid()] FROM generate_series(1, 20000)",
    )
    with database.begin() as connection:
        taken = outbox.take_waiting_jobs(connection, messages=100, task=100, seconds=60, small=50)
        read = connection.execute(
            text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'embedding_jobs'")
        ).scalar_one()
    assert [job.id for job in taken] == job_ids(database)[:100]
    assert read <= 3 * len(taken), "found, reserved, and perhaps looked at once more"


def test_small_jobs_are_taken_before_what_came_in_bulk(database: Engine) -> None:
    run(
        database,
        "INSERT INTO text_messages (id, message) SELECT gen_random_uuid(), 'row ' || n FROM generate_series(1, 1000) n",
    )
    persist(database, a_record("typed by hand"))
    with database.begin() as connection:
        taken = outbox.take_waiting_jobs(connection, messages=400, task=100, seconds=60, small=50)
    assert [job.messages for job in taken] == [500, 1]


def test_the_first_vectors_after_the_tables_were_made_anew_bring_their_model_along(database: Engine) -> None:
    record = a_record("text")
    persist(database, record)
    embed(database, {record.id: "text"})
    assert ask(database, "SELECT name FROM embedding_models WHERE active") == [{"name": MODEL}]


def test_vectors_of_a_model_that_was_switched_off_are_not_stored(database: Engine) -> None:
    record = a_record("text")
    persist(database, record)
    with database.begin() as connection:
        embeddings.register_model(connection, "another", 4)
    with pytest.raises(embeddings.ModelSwitched):
        embed(database, {record.id: "text"})
    assert len(ask(database, "SELECT id FROM embedding_jobs")) == 1


def test_a_task_that_had_the_wrong_text_at_hand_leaves_a_job_behind(database: Engine) -> None:
    record = a_record("the stored text")
    persist(database, record)
    embed(database, {record.id: "another text"})
    assert embedded(database) == set()
    embed(database, {record.id: "the stored text"})
    assert embedded(database) == {record.id}


class TestMissing:
    @pytest.fixture
    def bare(self, database: Engine) -> str:
        """The id of a message whose vector was deleted, beside one that has its vector, one that failed and one that
        waits."""
        bare, whole, failed = (a_record(text) for text in ("bare", "whole", "failed"))
        persist(database, bare, whole)
        texts = {bare.id: "bare", whole.id: "whole"}
        store(database, claim(database, job_ids(database)), texts)
        persist(database, failed)
        TestFailures().fail(database, failed.id, "failed")
        run(database, "DELETE FROM message_embeddings WHERE message_id = :id ::uuid", id=bare.id)
        persist(database, a_record("waiting"))
        return bare.id

    @pytest.mark.parametrize("piece", [1, 2, 100])
    def test_a_message_without_vectors_is_queued_once(
        self, settings: Settings, database: Engine, bare: str, monkeypatch: pytest.MonkeyPatch, piece: int
    ) -> None:
        monkeypatch.setattr(command_line, "MISSING_PIECE", piece)
        waiting = queued(database)
        assert command_line.embed_missing(settings) == 1
        assert queued(database) == sorted([bare, *waiting])
        assert command_line.embed_missing(settings) == 0

    def test_vectors_of_an_older_text_or_another_model_are_none(
        self, settings: Settings, database: Engine, bare: str
    ) -> None:
        run(database, "DELETE FROM embedding_jobs")
        run(database, "UPDATE message_embeddings SET model = 'another'")
        assert command_line.embed_missing(settings) == 3

    def test_a_deletion_that_is_queued_is_no_job_for_a_text(
        self, settings: Settings, database: Engine, bare: str
    ) -> None:
        run(database, "INSERT INTO embedding_jobs (message_ids, deleted) VALUES (ARRAY[:id ::uuid], TRUE)", id=bare)
        assert command_line.embed_missing(settings) == 1

    def test_a_failure_of_another_model_says_nothing(self, settings: Settings, database: Engine, bare: str) -> None:
        run(
            database,
            """
            INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
            SELECT id, content_hash, 'another', 'no', 1 FROM text_messages WHERE id = :id ::uuid
            """,
            id=bare,
        )
        assert command_line.embed_missing(settings) == 1

    def test_many_jobs_are_not_compared_with_each_message(
        self, database: Engine, bare: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        run(
            database,
            """
            INSERT INTO embedding_jobs (message_ids)
            SELECT array_agg(gen_random_uuid()) FROM generate_series(1, 300000) AS number GROUP BY number % 600
            """,
        )
        run(database, "ANALYZE embedding_jobs")
        plans: list[str] = []
        with database.begin() as connection:
            execute = connection.execute

            def explained(statement: TextClause, values: dict[str, object]) -> object:
                plans.extend(execute(text(f"EXPLAIN {statement.text}"), values).scalars())
                return execute(statement, values)

            monkeypatch.setattr(connection, "execute", explained)
            assert outbox.queue_missing(connection, None, limit=100) == (1, None)
        assert any("Anti Join" in line for line in plans)
        assert not any("ANY" in line for line in plans)

    def test_where_there_is_no_message(self, settings: Settings, database: Engine) -> None:
        assert command_line.embed_missing(settings) == 0
