"""Batches of which every message is new take a quicker way into the table: it must leave what the other way leaves."""

from collections.abc import Iterator

import pytest
from psycopg2.errors import BadCopyFileFormat
from sqlalchemy import Engine, event
from sqlalchemy.exc import DataError, SQLAlchemyError

from db import commands
from db.copy import HEADER, copy_pieces
from records import Record
from tests.parts import eventually
from tests.samples import a_record, ask, meanwhile, persist, row, run

ODD = ["\\N", "tab\tand\nline", "back\\slash", "", " ", "ünïcödé \U0001f600 \u0301", "{}", '"', "x" * 100_000, "\\."]
ROWS = "SELECT * FROM text_messages ORDER BY source_id"
LATER = (1_700_000_009_000, 0, 9)


def batch(count: int = 20) -> list[Record]:
    return [
        a_record(
            ODD[number % len(ODD)],
            (1_700_000_000_000 + number, number % 3, number),
            source_id=f"s-{number:02}",
            metadata=[None, '{"a": [1, "\\u00e4"], "b": null}', "{}"][number % 3],
        )
        for number in range(count)
    ]


def copied(database: Engine) -> list[str]:
    """Fills up with the statements that follow."""
    statements: list[str] = []
    event.listen(database, "before_cursor_execute", lambda *given: statements.append(given[2]))
    return statements


def rows(database: Engine) -> list[dict[str, object]]:
    return [{**found, "processed_at": None} for found in ask(database, ROWS)]


def test_both_ways_leave_the_same_rows(database: Engine) -> None:
    records = batch()
    persist(database, *records)
    slowly = rows(database)
    run(database, "DELETE FROM text_messages")
    run(database, "DELETE FROM deleted_messages")
    statements = copied(database)
    stored = persist(database, *records, reserved_seconds=5, expect_new=True)
    assert not any("INSERT INTO text_messages" in statement for statement in statements)
    assert rows(database) == slowly
    assert stored.texts == {record.id: record.message for record in records}
    assert stored.all_new
    assert len(stored.jobs) == 1


@pytest.mark.parametrize("created_ms", [-(2**62), -1, 0, 2**62], ids=str)
def test_times_that_no_date_can_show_are_taken_to_the_nearest(database: Engine, created_ms: int) -> None:
    records = [record._replace(timestamp=created_ms) for record in batch()]
    persist(database, *records)
    slowly = ask(database, "SELECT source_id, created_at::text FROM text_messages ORDER BY 1")
    run(database, "DELETE FROM text_messages")
    run(database, "DELETE FROM deleted_messages")
    persist(database, *records, expect_new=True)
    assert ask(database, "SELECT source_id, created_at::text FROM text_messages ORDER BY 1") == slowly


def test_one_that_was_there_is_edited_and_the_others_are_new(database: Engine) -> None:
    records = batch()
    persist(database, records[7]._replace(message="before", timestamp=1))
    stored = persist(database, *records, reserved_seconds=5, expect_new=True)
    assert stored.texts.keys() == {record.id for record in records}
    assert not stored.all_new
    assert {found["message"] for found in ask(database, ROWS)} == set(ODD)
    again = persist(database, *records, reserved_seconds=5, expect_new=True)
    assert (again.texts, again.all_new) == ({}, False)
    assert persist(database, *[a_record(str(number)) for number in range(3)]).all_new


def test_one_that_was_deleted_later_stays_away(database: Engine) -> None:
    records = batch()
    gone, back = records[3], records[4]
    persist(database, a_record(None, LATER, id=gone.id), a_record(None, (1, 0, 0), id=back.id))
    stored = persist(database, *records, expect_new=True)
    assert stored.texts.keys() == {record.id for record in records} - {gone.id}
    assert row(database, gone.id) is None
    assert row(database, back.id) is not None


def test_a_deletion_in_the_same_moment_is_respected(database: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    records = batch()
    insert = commands.insert

    def late(connection: object, texts: object) -> object:
        remembered = "INSERT INTO deleted_messages VALUES (:id ::uuid, :at, 0, 9)"
        run(database, remembered, id=records[5].id, at=LATER[0])
        return insert(connection, texts)  # type: ignore[arg-type]

    monkeypatch.setattr(commands, "insert", late)
    stored = persist(database, *records, reserved_seconds=5, expect_new=True)
    assert stored.texts.keys() == {record.id for record in records} - {records[5].id}
    assert row(database, records[5].id) is None


def test_one_that_cannot_be_stored_is_named_by_the_database(database: Engine) -> None:
    records = batch()
    for bad in ("nul \0", "lone \ud800"):
        with pytest.raises((DataError, ValueError)):
            persist(database, *records[:19], records[19]._replace(message=bad), expect_new=True)
    with pytest.raises(SQLAlchemyError):
        persist(database, *records[:19], records[19]._replace(metadata="{"), expect_new=True)
    assert rows(database) == []


def test_a_row_that_somebody_is_writing_is_waited_for(database: Engine) -> None:
    records = batch()
    with database.connect() as connection:
        commands.persist(connection, [records[0]])
        with pytest.raises(commands.RowsLocked), database.begin() as other:
            commands.persist(other, records, row_lock_ms=100, expect_new=True)
        stored: list[commands.Stored] = []
        with meanwhile(lambda: stored.append(persist(database, *records, expect_new=True))):
            blocked = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            eventually(lambda: bool(ask(database, blocked)))
            connection.commit()
    assert stored[0].texts.keys() == {record.id for record in records[1:]}
    assert len(rows(database)) == 20


def test_what_goes_wrong_while_rows_are_made_is_raised_as_it_is(database: Engine) -> None:
    def pieces() -> Iterator[bytes]:
        yield HEADER
        raise OverflowError("too large")

    with pytest.raises(OverflowError, match="too large"), database.begin() as connection:
        copy_pieces(connection.connection.cursor(), commands.COPY_MESSAGES, pieces())
    with pytest.raises(BadCopyFileFormat), database.begin() as connection:
        copy_pieces(connection.connection.cursor(), commands.COPY_MESSAGES, [b"no header"])
    assert persist(database, a_record("the connection is as before")).texts
