"""A few texts are stored in one round trip, and their job is held instead of claimed: it must leave what the other way
leaves, and step back from whatever is more than that."""

import threading
import time
import uuid

import psycopg2
import pytest
from sqlalchemy import Engine, text

from db import commands, outbox, session
from db.commands import Stored
from records import Record
from tasks import embed, leases, measured, upkeep
from tests.integration.test_embedding_faults import FAILED, JOBS, Fickle, fickle, job_ids  # noqa: F401 - a fixture
from tests.parts import eventually
from tests.samples import a_record, ask, embedded, meanwhile, persist, run, statements_seen

LEASE = "00000000-0000-4000-8000-0000000000aa"
OTHER = "00000000-0000-4000-8000-0000000000bb"
ODD = [
    "\\N",
    "tab\tand\nline",
    "back\\slash",
    " ",
    "ünïcödé \U0001f600 \u0301",
    "{}",
    '"',
    ":name %s %(a)s",
    "x" * 100_000,
]
ROWS = "SELECT * FROM text_messages ORDER BY source_id"


def at(second: int, offset: int = 0) -> tuple[int, int, int]:
    return (1_700_000_000_000 + 1000 * second, 0, offset)


def few(database: Engine, *records: Record, lease: str | None = LEASE, job_messages: int = 500) -> Stored | None:
    with session.autocommit_connection(database) as connection:
        return commands.persist_few(connection, records, reserved_seconds=20, job_messages=job_messages, lease=lease)


def named(name: str, message: str, version: tuple[int, int, int], **others: object) -> Record:
    record = a_record(message, version, source_id=name, **others)  # type: ignore[arg-type]
    return record._replace(id=str(uuid.uuid5(uuid.NAMESPACE_OID, name)))


BEFORE = [named("edited", "old", at(1)), named("same", "same", at(1)), named("newer", "newest", at(9))]
BATCH = [
    named("edited", "new", at(2), metadata='{"a": [1, "\\u00e4"], "b": null}'),
    named("same", "same", at(3)),
    named("newer", "too late", at(3)),
    named("deleted", "too late, too", at(3)),
    named("twice", "first", at(3)),
    named("twice", "second", at(4)),
    *(named(f"odd {number}", each, at(5, number)) for number, each in enumerate(ODD)),
]


def prepare(database: Engine) -> None:
    for table in ("text_messages", "deleted_messages", "embedding_jobs"):
        run(database, f"DELETE FROM {table}")
    persist(database, *BEFORE)
    persist(database, named("deleted", "once", at(1)))
    persist(database, named("deleted", "", at(8))._replace(message=None))
    run(database, "DELETE FROM embedding_jobs")


def left(database: Engine) -> tuple[object, object]:
    rows = [{**found, "processed_at": None} for found in ask(database, ROWS)]
    queued = ask(database, "SELECT array(SELECT unnest(message_ids) ORDER BY 1)::text AS ids FROM embedding_jobs")
    return rows, sorted(str(found["ids"]) for found in queued)


def test_both_ways_leave_the_same(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(BATCH) < commands.COPY_FROM
    prepare(database)
    slow = persist(database, *BATCH, reserved_seconds=20)
    slowly = left(database)
    prepare(database)
    statements = statements_seen(monkeypatch)
    stored = few(database, *BATCH)
    assert len(statements) == 1, "one round trip"
    assert stored is not None
    assert left(database) == slowly
    assert (stored.texts, stored.all_new, len(stored.jobs)) == (slow.texts, slow.all_new, len(slow.jobs))
    assert "too late" not in stored.texts.values()


def test_new_ones_are_told_as_new(database: Engine) -> None:
    assert few(database, named("a", "one", at(1)), named("b", "two", at(1))) == Stored(
        job_ids(database), {named("a", "", at(1)).id: "one", named("b", "", at(1)).id: "two"}, True, True
    )


@pytest.mark.parametrize(
    "batch",
    [
        [a_record("gone")._replace(message=None)],
        [a_record("again")._replace(replayed=("texts", 0, 1))],
        [a_record(str(number)) for number in range(commands.COPY_FROM)],
        [a_record("fine"), a_record("nul \0")],
        [a_record("fine"), a_record("half \ud800")],
        [a_record("fine"), a_record("metadata", metadata="no json")],
    ],
    ids=["a tombstone", "a replay", "many", "a NUL", "half a surrogate pair", "bad metadata"],
)
def test_what_is_more_than_that_is_left_alone(database: Engine, batch: list[Record]) -> None:
    assert few(database, *batch) is None
    assert ask(database, ROWS) == []
    assert job_ids(database) == []
    with database.begin() as connection:  # the connection is as it was: what is not committed is taken back
        connection.execute(text("CREATE TABLE left_behind ()"))
        connection.rollback()
    assert ask(database, "SELECT to_regclass('left_behind') AS found") == [{"found": None}]


def test_more_than_one_job_takes_is_left_alone(database: Engine) -> None:
    assert few(database, a_record("one"), a_record("two"), job_messages=1) is None


@pytest.mark.parametrize("typed", ["UPDATE text_messages SET message = 'typed'", "DELETE FROM text_messages"])
def test_a_row_that_somebody_holds_is_not_waited_for(database: Engine, typed: str) -> None:
    persist(database, named("held", "old", at(1)))
    with database.connect() as connection:
        connection.execute(text(typed))
        began = time.monotonic()
        assert few(database, named("held", "new", at(2)), a_record("beside it")) is None
        assert time.monotonic() - began < 5
        connection.rollback()
    assert [found["message"] for found in ask(database, ROWS)] == ["old"]


def test_a_deletion_by_hand_that_was_under_way_is_respected(database: Engine) -> None:
    record = named("gone", "once", at(1))
    persist(database, record)
    run(database, "DELETE FROM embedding_jobs")
    done: list[Stored | None] = []
    waits = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with database.connect() as connection:
        connection.execute(text("DELETE FROM text_messages"))
        with meanwhile(lambda: done.append(few(database, record))):
            eventually(lambda: done or ask(database, waits))
            connection.commit()
    assert ask(database, ROWS) == []
    (stored,) = done
    assert stored is None or stored.texts == {}  # None: it has waited for too long


def test_a_row_typed_for_a_deleted_id_outlives_a_replay(database: Engine) -> None:
    record = named("gone", "once", at(1))
    persist(database, record)
    run(database, "DELETE FROM text_messages")
    run(database, "INSERT INTO text_messages (id, message) VALUES (CAST(:id AS uuid), 'typed')", id=record.id)
    for batch in ([record], [record, a_record("beside it")]):
        stored = few(database, *batch)
        assert stored is not None
        assert record.id not in stored.texts
        assert "typed" in [found["message"] for found in ask(database, ROWS)], f"gone after {batch}"


def test_an_outage_is_told(settings: object, database: Engine) -> None:
    with session.autocommit_connection(database) as connection:
        connection.exec_driver_sql("SELECT 1")
        run(database, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
        with pytest.raises(psycopg2.OperationalError) as failed:
            commands.persist_few(connection, [a_record("one")], reserved_seconds=20, job_messages=100)
    assert session.is_outage(failed.value)
    assert few(database, a_record("one")) is not None


def test_a_held_job_is_done_without_being_claimed(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stored = few(database, a_record("one"), a_record("two"))
    assert stored is not None
    assert ask(database, JOBS) == [{"messages": 2, "attempts": 0, "leased": True}]
    with database.begin() as connection:
        assert outbox.claim_jobs(connection, stored.jobs, OTHER, 20) == []
    statements = statements_seen(monkeypatch)
    embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert not any("UPDATE embedding_jobs" in each for each in statements)
    assert embedded(database) == stored.texts.keys()
    assert job_ids(database) == []


def test_a_held_job_that_was_lost_on_the_way_is_found_and_has_cost_no_attempt(database: Engine) -> None:
    stored = few(database, a_record("one"))
    assert stored is not None
    run(database, "UPDATE embedding_jobs SET available_at = clock_timestamp()")
    with database.begin() as connection:
        assert outbox.take_waiting_jobs(connection, messages=10, task=100, seconds=20, small=50) == [
            (stored.jobs[0], 1, 1)
        ]
        (claimed,) = outbox.claim_jobs(connection, stored.jobs, OTHER, 20)
    assert claimed.attempts == 1


def test_a_lease_that_nobody_renews_is_given_up_before_it_ends_where_nothing_is_queued(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert 1 - leases.FRESH - leases.RENEWED > leases.GIVEN_UP, "a worker may be at it"
    sent: list[list[int]] = []
    monkeypatch.setattr(upkeep, "send_jobs", lambda tasks_, **_: sent.extend(ids for ids, _ in tasks_))
    monkeypatch.setattr(upkeep, "SWEEP_AGAIN_SECONDS", 0.0)
    stored = few(database, a_record("one"))
    persist(database, a_record("reserved"), reserved_seconds=20)
    assert stored is not None
    left = "UPDATE embedding_jobs SET available_at = clock_timestamp() + make_interval(secs => :left)"
    for queued, left_seconds, expected in ((0, 10.5, []), (1, 9.5, []), (0, 9.5, [stored.jobs])):
        monkeypatch.setattr(upkeep, "queue_length", lambda *_, queued=queued: queued)
        run(database, left, left=left_seconds)
        upkeep.sweep()
        assert sent == expected, "what is only reserved waits: its provider may have asked for that"


def test_what_is_told_of_stored_vectors_does_not_wait_for_the_connection_that_stored_them(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker has one connection: who asked for another before it was given back would wait for ten seconds."""
    held: list[int] = []
    before = database.pool.checkedout()  # type: ignore[attr-defined]
    monkeypatch.setattr(measured, "embedded", lambda *_: held.append(database.pool.checkedout()))  # type: ignore[attr-defined]
    for records in ([a_record("one")], [a_record(f"text {number}") for number in range(20)]):
        with database.begin() as connection:
            stored = commands.persist(connection, records, reserved_seconds=20, lease=LEASE)
        embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert held == [before, before]


@pytest.mark.parametrize(("waited", "fresh"), [(0.0, True), (4.0, True), (6.0, False), (-60.0, False)])
def test_a_held_job_that_has_waited_is_claimed_before_its_texts_are_embedded(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    waited: float,
    fresh: bool,
) -> None:
    stored = few(database, a_record("one"))
    assert stored is not None
    statements = statements_seen(monkeypatch)
    embed.embed_text.push_request(sent=time.time() - waited)  # as of a message's headers
    embed.embed_text.run(stored.jobs, stored.texts, held=LEASE)
    embed.embed_text.pop_request()
    assert any("UPDATE embedding_jobs" in each for each in statements) is not fresh
    assert embedded(database) == stored.texts.keys()
    assert job_ids(database) == []


def test_a_held_job_whose_vector_is_there_already_is_finished(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    stored = few(database, a_record("one"))
    assert stored is not None
    run(database, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    embed.embed_text([job for job in job_ids(database) if job not in stored.jobs])
    assert embedded(database) == stored.texts.keys()
    embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert embedded(database) == stored.texts.keys()
    assert job_ids(database) == []


def test_a_held_job_that_came_too_late_leaves_it_to_who_has_it(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    stored = few(database, a_record("one"))
    assert stored is not None
    run(database, "UPDATE embedding_jobs SET available_at = clock_timestamp()")
    with database.begin() as connection:
        assert len(outbox.claim_jobs(connection, stored.jobs, OTHER, 20)) == 1
    embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert embedded(database) == set()
    assert ask(database, JOBS) == [{"messages": 1, "attempts": 1, "leased": True}]


def test_a_held_text_that_was_edited_meanwhile_gets_no_stale_vector(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    stored = few(database, named("a", "old", at(1)))
    edited = few(database, named("a", "new", at(2)), lease=OTHER)
    assert stored is not None
    assert edited is not None
    embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert embedded(database) == set()
    embed.embed_text(edited.jobs, edited.texts, held=OTHER)
    assert embedded(database) == edited.texts.keys()
    assert job_ids(database) == []


def test_a_job_that_was_lost_makes_no_edited_text_of_the_others_count_as_current(
    database: Engine,
    fickle: Fickle,  # noqa: F811
) -> None:
    first, second = few(database, named("a", "old", at(1))), few(database, named("b", "kept", at(1)))
    assert first is not None
    assert second is not None
    fickle.gate = threading.Event()
    jobs, texts = [*first.jobs, *second.jobs], first.texts | second.texts
    with meanwhile(lambda: embed.embed_text(jobs, texts, lease=LEASE)):
        assert fickle.inside.wait(10)
        assert few(database, named("a", "new", at(2)), lease=OTHER) is not None
        run(database, "UPDATE embedding_jobs SET lease = CAST(:lease AS uuid) WHERE id = :id", lease=OTHER, id=jobs[1])
        fickle.gate.set()
    assert ask(database, "SELECT FROM message_embeddings") == []


def test_a_provider_that_is_away_gives_a_held_job_back_with_no_attempt(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    stored = few(database, a_record("one"))
    assert stored is not None
    fickle.away_from_call = 1
    embed.embed_text(stored.jobs, stored.texts, held=LEASE)
    assert ask(database, JOBS) == [{"messages": 1, "attempts": 0, "leased": False}]
    fickle.away_from_call = 10**9
    embed.embed_text(stored.jobs)
    assert embedded(database) == stored.texts.keys()
    assert ask(database, FAILED) == []


def test_all_leases_are_renewed_while_they_are_kept_and_not_after(database: Engine, fickle: Fickle) -> None:  # noqa: F811
    first, second = few(database, a_record("one")), few(database, a_record("two"), lease=OTHER)
    assert first is not None
    assert second is not None

    def seconds_left() -> list[float]:
        rest = "SELECT extract(epoch FROM available_at - clock_timestamp())::float AS rest FROM embedding_jobs"
        return [found["rest"] for found in ask(database, f"{rest} ORDER BY id")]

    with database.begin() as connection:
        for stored, lease in ((first, LEASE), (second, OTHER)):
            outbox.claim_jobs(connection, stored.jobs, lease, 0)
    jobs = [outbox.Job(stored.jobs[0], list(stored.texts), False, 1) for stored in (first, second)]
    done = threading.Event()

    def work() -> None:
        with leases.kept(jobs[:1], LEASE, 0.9), leases.kept(jobs[1:], OTHER, 0.9):
            assert done.wait(20)

    with meanwhile(work):
        eventually(lambda: min(seconds_left()) > 0.4)
        run(database, "UPDATE embedding_jobs SET lease = NULL")  # the sweep took it for lost
        eventually(lambda: [found["leased"] for found in ask(database, JOBS)] == [True, True])
        done.set()
    assert [found["attempts"] for found in ask(database, JOBS)] == [0, 0], "no worker has died"
    eventually(lambda: max(seconds_left()) < 0)
    time.sleep(0.6)
    assert max(seconds_left()) < 0
