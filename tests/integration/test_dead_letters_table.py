"""The table of dead letters: each once for its coordinates, and its state."""

import threading

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError

from db import dead_letter_queries, dead_letters, queries, session
from records import DeadLetter
from settings import Settings
from tests.parts import eventually
from tests.samples import a_dead_letter, a_record, ask, persist, run


def note(engine: Engine, *letters: DeadLetter) -> None:
    with engine.begin() as connection:
        dead_letters.note(connection, letters)


def states(engine: Engine) -> dict[int, str]:
    return {
        each["offset"]: each["state"]
        for each in ask(engine, 'SELECT "offset", state FROM dead_letters ORDER BY "offset"')
    }


def open_letters(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(queries.counts(connection)["dead_letters"])


def test_a_letter_is_noted_once_however_often_it_comes(database: Engine) -> None:
    note(database, a_dead_letter(1), a_dead_letter(2), a_dead_letter(1))
    note(database, a_dead_letter(2, reason="invalid-id"))
    found = ask(database, 'SELECT "offset", reason FROM dead_letters ORDER BY "offset"')
    assert found == [{"offset": 1, "reason": "invalid-json"}, {"offset": 2, "reason": "invalid-json"}]
    assert open_letters(database) == 2


def test_a_letter_waits_for_another_worker_that_has_its_row_for_a_moment(settings: Settings, database: Engine) -> None:
    engine = session.connect_engine(settings.database_url(), "worker")
    note(engine, a_dead_letter(1))
    with database.connect() as other:
        other.execute(text("SELECT FROM dead_letters FOR UPDATE"))
        threading.Timer(5 * dead_letters.TABLE_MS / 1000, other.rollback).start()
        note(engine, a_dead_letter(1)._replace(timestamp=2))  # another record at the same coordinates
        eventually(lambda: not other.in_transaction())
    engine.dispose()


def test_nobody_waits_for_long_while_somebody_holds_the_table(settings: Settings, database: Engine) -> None:
    """The workers that note dead letters are those that store texts."""
    engine = session.connect_engine(settings.database_url(), "worker", timeout_ms=1_000)
    with database.connect() as somebody:
        somebody.execute(text("LOCK TABLE dead_letters IN SHARE MODE"))
        with pytest.raises(OperationalError, match="lock timeout") as raised:
            note(engine, a_dead_letter(1))
    assert session.is_outage(raised.value), "it is tried again"
    note(engine, a_dead_letter(1))
    engine.dispose()
    assert states(database) == {1: "open"}


def test_its_bytes_and_headers_are_kept(database: Engine) -> None:
    note(database, a_dead_letter()._replace(value=None, value_bytes=None), a_dead_letter(1)._replace(key=None))
    first, second = ask(database, 'SELECT key, value, value_bytes, headers FROM dead_letters ORDER BY "offset"')
    assert (bytes(first["key"]), first["value"], first["value_bytes"]) == (b"key", None, None)
    assert (second["key"], bytes(second["value"]), second["value_bytes"]) == (None, b'{"', 2)
    assert first["headers"] == [["trace", "YQ=="], ["empty", None]]


def test_a_replay_that_passes_closes_it(database: Engine) -> None:
    note(database, a_dead_letter(1), a_dead_letter(2))
    persist(database, a_record("mended", replayed=("texts", 0, 1)))
    assert states(database) == {1: "replayed", 2: "open"}
    assert open_letters(database) == 1


def test_a_replay_that_fails_again_opens_it(database: Engine) -> None:
    note(database, a_dead_letter(1))
    with database.begin() as connection:
        assert dead_letters.set_state(connection, [("texts", 0, 1)], "replayed") == 1
    note(database, a_dead_letter(1))
    assert states(database) == {1: "replayed"}, "the first coming once more, after a crash of the bridge"
    note(database, a_dead_letter(1, reason="text-too-long", again=True))
    assert states(database) == {1: "open"}
    assert ask(database, "SELECT reason FROM dead_letters") == [{"reason": "text-too-long"}]


def test_one_that_is_open_again_is_not_meant_by_who_saw_it_before(database: Engine) -> None:
    note(database, a_dead_letter(1), a_dead_letter(2))
    with database.begin() as connection:
        seen = dead_letter_queries.counts(connection)[0]["newest"]
        dead_letters.set_state(connection, [("texts", 0, 1)], "replayed")
    note(database, a_dead_letter(1, reason="text-too-long", again=True))
    with database.begin() as connection:
        assert dead_letters.drop(connection, reason=None, until=seen, limit=10) == 1
    assert states(database) == {1: "open", 2: "dropped"}


def test_what_was_dropped_stays_dropped(database: Engine) -> None:
    note(database, a_dead_letter(1))
    with database.begin() as connection:
        keys = [("texts", 0, 1), ("texts", 0, 99), ("other", 0, 1)]
        assert dead_letters.set_state(connection, keys, "dropped") == 1
        assert dead_letters.set_state(connection, keys, "replayed") == 0
    note(database, a_dead_letter(1), a_dead_letter(1, again=True))
    assert states(database) == {1: "dropped"}


def test_a_replayed_letter_keeps_the_version_of_its_first_coming(database: Engine) -> None:
    first = a_record("mended", (1_700_000_000_000, 0, 7), replayed=("texts", 0, 7))
    newer = a_record("newer", (1_700_000_000_001, 0, 8), id=first.id)
    persist(database, newer)
    assert persist(database, first).texts == {}
    assert ask(database, "SELECT message FROM text_messages") == [{"message": "newer"}]


def test_an_older_record_at_the_same_coordinates_is_another_one(database: Engine) -> None:
    """The topic was made again, and filled from a backup with the times that its records had."""
    note(database, a_dead_letter(5))
    run(database, "UPDATE dead_letters SET state = 'dropped'")
    note(database, a_dead_letter(5, reason="invalid-id")._replace(timestamp=1_600_000_000_000))
    assert ask(database, "SELECT reason, state FROM dead_letters") == [{"reason": "invalid-id", "state": "open"}]
