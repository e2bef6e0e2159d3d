"""Storing records: for each id the latest version wins, whatever came first, how often, and beside what."""

import random
import uuid
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, strategies
from hypothesis import settings as hypothesis_settings
from sqlalchemy import Engine
from sqlalchemy.exc import DataError

from db import commands, queries
from records import Record
from tests.samples import a_record, ask, meanwhile, persist, row, run, wait_until_blocked

FIRST, SECOND, THIRD = (1_700_000_000_000, 0, 5), (1_700_000_000_001, 1, 3), (1_700_000_000_001, 1, 4)


def deletion(engine: Engine, message_id: str) -> tuple[int, int, int] | None:
    with engine.connect() as connection:
        return queries.deletion(connection, message_id)


def version(engine: Engine, message_id: str) -> tuple[int, int, int]:
    with engine.connect() as connection:
        found = queries.version(connection, message_id)
    assert found is not None
    return found


def test_a_record_is_stored(database: Engine) -> None:
    record = a_record("Hello", FIRST, source_id="test-123", metadata='{"n": 1.10}')
    assert persist(database, record).texts.keys() == {record.id}
    found = row(database, record.id)
    assert found is not None
    assert (found["message"], found["source_id"], str(found["metadata"]["n"])) == ("Hello", "test-123", "1.10")
    assert found["created_at"] == "2023-11-14 22:13:20+00"


class Step(NamedTuple):
    """A record of a small world of ids, so that versions of one id meet often."""

    place: int
    version: tuple[int, int, int]
    message: str | None


@strategies.composite
def deliveries(draw: strategies.DrawFn) -> tuple[list[Step], list[list[Step]]]:
    """Records, and a delivery of them: in any order, some of them twice, cut into any batches."""
    version = strategies.tuples(strategies.integers(0, 3), strategies.integers(0, 1), strategies.integers(0, 3))
    message = strategies.sampled_from([None, "one", "two", "three"])
    step = strategies.builds(Step, strategies.integers(0, 2), version, message)
    steps = draw(strategies.lists(step, min_size=1, max_size=12, unique_by=lambda each: each.version))
    repeated = draw(strategies.lists(strategies.sampled_from(steps), max_size=4))
    order = draw(strategies.permutations(steps + repeated))
    cuts = sorted(draw(strategies.sets(strategies.integers(1, len(order)), max_size=5)) | {0, len(order)})
    return steps, [list(order[start:end]) for start, end in pairwise(cuts)]


@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(delivery=deliveries())
def test_any_order_and_any_batches_give_the_same_rows(
    database: Engine, delivery: tuple[list[Step], list[list[Step]]]
) -> None:
    steps, batches = delivery
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for batch in batches:
        persist(database, *(a_record(step.message, step.version, id=ids[step.place]) for step in batch))

    for place, message_id in enumerate(ids):
        own = [step for step in steps if step.place == place]
        winner = max(own, key=lambda step: step.version, default=None)
        found = row(database, message_id)
        if winner is None or winner.message is None:
            assert found is None
            assert deletion(database, message_id) == (winner.version if winner else None)
        else:
            assert found is not None
            assert found["message"] == winner.message
            assert version(database, message_id) == winner.version


def test_replaying_the_log_changes_no_row(database: Engine) -> None:
    message_id, other = str(uuid.uuid4()), str(uuid.uuid4())
    log = [
        a_record("one", FIRST, id=message_id),
        a_record("two", SECOND, id=message_id, metadata='{"a": 1}'),
        a_record("here and gone", FIRST, id=other),
        a_record(None, SECOND, id=other),
    ]
    for record in log:
        persist(database, record)
    before = ask(database, "SELECT xmin, ctid, * FROM text_messages")
    for batch in ([each] for each in log):
        assert persist(database, *batch).texts == {}
    assert persist(database, *log).texts == {}
    assert ask(database, "SELECT xmin, ctid, * FROM text_messages") == before


@pytest.mark.parametrize("metadata", [None, '{"source": "second"}'])
def test_the_same_text_again_moves_the_version_and_leaves_processed_at_alone(
    database: Engine, metadata: str | None
) -> None:
    message_id = str(uuid.uuid4())
    persist(database, a_record("same", FIRST, id=message_id))
    before = row(database, message_id)
    jobs = ask(database, "SELECT id FROM embedding_jobs")
    again = persist(database, a_record("same", SECOND, id=message_id, metadata=metadata), reserved_seconds=5)
    after = row(database, message_id)
    assert before is not None
    assert after is not None
    assert after["processed_at"] == before["processed_at"]
    assert after["created_at"] == before["created_at"]
    assert version(database, message_id) == SECOND
    assert again.jobs == []
    assert ask(database, "SELECT id FROM embedding_jobs") == jobs


def test_another_text_moves_processed_at_and_leaves_created_at_alone(database: Engine) -> None:
    message_id = str(uuid.uuid4())
    persist(database, a_record("one", FIRST, id=message_id))
    before = row(database, message_id)
    persist(database, a_record("two", SECOND, id=message_id))
    after = row(database, message_id)
    assert before is not None
    assert after is not None
    assert after["processed_at"] > before["processed_at"]
    assert after["created_at"] == before["created_at"]


def test_a_batch_with_several_versions_of_an_id_dates_from_the_first(database: Engine) -> None:
    message_id = str(uuid.uuid4())
    persist(database, a_record("two", THIRD, id=message_id), a_record("one", FIRST, id=message_id))
    found = row(database, message_id)
    assert found is not None
    assert (found["message"], found["created_at"]) == ("two", "2023-11-14 22:13:20+00")


@pytest.mark.parametrize("timestamp", [-(2**63), -1, 0, 2**63 - 1])
def test_timestamps_that_no_calendar_has_are_stored(database: Engine, timestamp: int) -> None:
    record = a_record("when?", (timestamp, 0, 0))
    persist(database, record)
    found = row(database, record.id)
    assert found is not None
    assert version(database, record.id)[0] == timestamp
    assert found["created_at"] is not None


@pytest.mark.parametrize(
    "message", ["'; DROP TABLE text_messages; --", '{"a", \\N}', "\\", "naïve 漢字 🦆 \u202e", "x" * 100_000]
)
def test_texts_are_stored_as_they_are(database: Engine, message: str) -> None:
    record = a_record(message, source_id=message[:255])
    persist(database, record)
    found = row(database, record.id)
    assert found is not None
    assert (found["message"], found["source_id"]) == (message, message[:255])


def test_what_the_database_refuses_raises_and_stores_nothing(database: Engine) -> None:
    good, bad = a_record("good"), a_record("bad", metadata='{"n": 1e200000}')
    with pytest.raises(DataError):
        persist(database, good, bad)
    assert row(database, good.id) is None


class TestDeletions:
    def test_a_tombstone_deletes_and_is_remembered(self, database: Engine) -> None:
        message_id = str(uuid.uuid4())
        persist(database, a_record("one", FIRST, id=message_id))
        persist(database, a_record(None, SECOND, id=message_id))
        assert row(database, message_id) is None
        assert deletion(database, message_id) == SECOND

    def test_a_text_later_than_the_tombstone_comes_back(self, database: Engine) -> None:
        message_id = str(uuid.uuid4())
        persist(database, a_record(None, SECOND, id=message_id))
        assert persist(database, a_record("again", THIRD, id=message_id)).texts.keys() == {message_id}
        assert version(database, message_id) == THIRD

    def test_a_delete_by_hand_is_remembered_with_the_version_of_the_row(self, database: Engine) -> None:
        record = a_record("one", SECOND)
        persist(database, record)
        run(database, "DELETE FROM text_messages WHERE id = CAST(:id AS uuid)", id=record.id)
        assert deletion(database, record.id) == SECOND
        assert persist(database, record).texts == {}
        assert row(database, record.id) is None
        assert persist(database, record._replace(offset=record.offset + 1)).texts.keys() == {record.id}

    def test_a_truncate_by_hand_is_a_delete_of_every_row(self, database: Engine) -> None:
        records = [a_record(f"text {number}", (1_700_000_000_000, 0, number)) for number in range(3)]
        persist(database, *records)
        run(database, "TRUNCATE text_messages")
        assert persist(database, *records).texts == {}
        assert ask(database, "SELECT id FROM text_messages") == []

    def test_a_truncate_goes_on_to_what_refers_to_the_rows(self, database: Engine) -> None:
        record = a_record("one", SECOND)
        persist(database, record)
        run(database, "CREATE TABLE notes (of UUID REFERENCES text_messages)")
        run(database, "INSERT INTO notes SELECT id FROM text_messages")
        run(database, "TRUNCATE text_messages CASCADE")
        assert deletion(database, record.id) == SECOND
        assert ask(database, "SELECT id FROM text_messages UNION SELECT * FROM notes") == []
        (job,) = ask(database, "SELECT message_ids::text[] FROM embedding_jobs WHERE deleted")
        assert job["message_ids"] == [record.id]
        run(database, "TRUNCATE text_messages CASCADE")

    def test_a_row_typed_for_a_deleted_id_outlives_a_replay(self, database: Engine) -> None:
        record = a_record("one", FIRST)
        tombstone = a_record(None, SECOND, id=record.id)
        persist(database, record, tombstone)
        type_row(database, record.id, "typed")
        for batch in ([record], [tombstone], [record, tombstone], [record, a_record("beside it")]):
            persist(database, *batch)
            found = row(database, record.id)
            assert found is not None, f"gone after {batch}"
            assert found["message"] == "typed"

    def test_a_row_moved_to_a_deleted_id_outlives_a_replay(self, database: Engine) -> None:
        moved, record = a_record("moved", FIRST), a_record("one", SECOND)
        tombstone = a_record(None, THIRD, id=record.id)
        persist(database, moved, record, tombstone)
        run(database, "UPDATE text_messages SET id = CAST(:id AS uuid)", id=record.id)
        for batch in ([record], [tombstone], [record, tombstone], [moved, tombstone, record, a_record("beside it")]):
            persist(database, *batch)
            found = row(database, record.id)
            assert found is not None, f"gone after {batch}"
            assert found["message"] == "moved"
        persist(database, tombstone._replace(offset=THIRD[2] + 1))
        assert row(database, record.id) is None

    def test_a_deletion_is_forgotten_a_day_after_the_log_has_forgotten_its_record(self, database: Engine) -> None:
        old, fresh = a_record(None), a_record(None)
        persist(database, old, fresh)
        run(
            database,
            "UPDATE deleted_messages SET deleted_at = now() - INTERVAL '217 h' WHERE id::text = :id",
            id=old.id,
        )
        run(
            database,
            "UPDATE deleted_messages SET deleted_at = now() - INTERVAL '215 h' WHERE id::text = :id",
            id=fresh.id,
        )
        with database.begin() as connection:
            assert commands.forget_old_deletions(connection, log_ms=8 * 24 * 3600 * 1000) == 1
        assert deletion(database, old.id) is None
        assert deletion(database, fresh.id) is not None


def type_row(engine: Engine, message_id: str, message: str) -> None:
    run(
        engine,
        "INSERT INTO text_messages (id, message) VALUES (CAST(:id AS uuid), :message)",
        id=message_id,
        message=message,
    )


class TestEditsByHand:
    def test_an_edit_keeps_the_version_so_a_replay_does_not_undo_it(self, database: Engine) -> None:
        record = a_record("one", FIRST)
        persist(database, record)
        run(database, "UPDATE text_messages SET message = 'edited'")
        assert version(database, record.id) == FIRST
        persist(database, record)
        found = row(database, record.id)
        assert found is not None
        assert found["message"] == "edited"

    def test_a_later_record_wins_over_an_edit(self, database: Engine) -> None:
        record = a_record("one", FIRST)
        persist(database, record)
        run(database, "UPDATE text_messages SET message = 'edited'")
        persist(database, a_record("two", SECOND, id=record.id))
        found = row(database, record.id)
        assert found is not None
        assert found["message"] == "two"

    def test_any_record_wins_over_a_typed_row(self, database: Engine) -> None:
        message_id = str(uuid.uuid4())
        type_row(database, message_id, "typed")
        persist(database, a_record("from the log", (0, 0, 0), id=message_id))
        found = row(database, message_id)
        assert found is not None
        assert found["message"] == "from the log"


class TestAtTheSameTime:
    """Two writers, both not committed: they must not overlook each other."""

    def test_a_tombstone_after_its_text(self, database: Engine) -> None:
        text, tombstone = a_record("one", FIRST), a_record(None, SECOND)
        self.both(database, text, tombstone._replace(id=text.id))
        assert row(database, text.id) is None

    def test_a_text_after_its_tombstone(self, database: Engine) -> None:
        text, tombstone = a_record("one", FIRST), a_record(None, SECOND)
        self.both(database, tombstone._replace(id=text.id), text)
        assert row(database, text.id) is None

    def test_a_later_text_after_the_tombstone(self, database: Engine) -> None:
        tombstone, text = a_record(None, FIRST), a_record("one", SECOND)
        self.both(database, tombstone._replace(id=text.id), text)
        assert version(database, text.id) == SECOND

    @pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
    def test_two_texts(self, database: Engine, order: Sequence[tuple[int, int, int]]) -> None:
        message_id = str(uuid.uuid4())
        self.both(database, *(a_record(f"text {each[2]}", each, id=message_id) for each in order))
        assert version(database, message_id) == SECOND

    def both(self, engine: Engine, first: Record, second: Record) -> None:
        with engine.connect() as connection:
            commands.persist(connection, [first])
            with meanwhile(lambda: persist(engine, second)):
                wait_until_blocked(engine)
                connection.commit()

    @pytest.mark.parametrize("truncate", [False, True])
    def test_a_delete_by_hand_and_a_replay(self, database: Engine, truncate: bool) -> None:
        record = a_record("one", FIRST)
        persist(database, record)
        statement = "TRUNCATE text_messages" if truncate else "DELETE FROM text_messages"
        stored: list[commands.Stored] = []
        with database.connect() as connection:
            connection.exec_driver_sql(statement)
            with meanwhile(lambda: stored.append(persist(database, record))):
                wait_until_blocked(database)
                connection.commit()
        assert row(database, record.id) is None
        assert stored[0].texts == {}
        assert deletion(database, record.id) == FIRST

    def test_a_delete_by_hand_and_a_later_record(self, database: Engine) -> None:
        record = a_record("one", FIRST)
        persist(database, record)
        with database.connect() as connection:
            connection.exec_driver_sql("DELETE FROM text_messages")
            with meanwhile(lambda: persist(database, a_record("two", SECOND, id=record.id))):
                wait_until_blocked(database)
                connection.commit()
        assert version(database, record.id) == SECOND

    def test_deletions_by_hand_and_tombstones_do_not_wait_for_each_other_in_a_circle(self, database: Engine) -> None:
        """Both take the rows first, in the order of their ids, and what is remembered of them then."""
        low, high = sorted(str(uuid.uuid4()) for _ in range(2))
        persist(database, a_record("one", FIRST, id=low), a_record("two", FIRST, id=high))
        with database.connect() as connection:
            connection.exec_driver_sql(f"SELECT FROM text_messages WHERE id = '{low}' FOR UPDATE")
            with meanwhile(lambda: persist(database, *(a_record(None, SECOND, id=each) for each in (high, low)))):
                wait_until_blocked(database)
                connection.exec_driver_sql("DELETE FROM text_messages")
                connection.commit()
        assert (row(database, low), row(database, high)) == (None, None)
        assert (deletion(database, low), deletion(database, high)) == (SECOND, SECOND)

    def test_many_writers_of_the_same_ids_do_not_lock_each_other_out(self, database: Engine) -> None:
        ids = [str(uuid.uuid4()) for _ in range(30)]

        def write(seed: int) -> None:
            chance = random.Random(seed)
            for offset in range(25):
                batch = [a_record(f"{seed} {offset}", (offset, seed, offset), id=each) for each in ids]
                chance.shuffle(batch)
                if offset % 5 == 0:
                    batch[0] = batch[0]._replace(message=None)
                persist(database, *batch)

        with meanwhile(lambda: write(0)), meanwhile(lambda: write(1)), meanwhile(lambda: write(2)):
            pass
        winners = {version(database, each) for each in ids}
        assert winners == {(24, 2, 24)}
