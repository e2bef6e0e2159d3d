"""The oracle can tell right from wrong: what it expects of small logs, and that the watch sees a commit too early."""

import json
import uuid
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from bridge.message import BadRecord, decode
from db import dead_letters
from letter_headers import Coordinates
from tests.chaos import oracle
from tests.chaos.oracle import Bad, Deletion, Text
from tests.chaos.watch import not_durable
from tests.chaos.workload import workload
from tests.samples import a_dead_letter, a_record, persist

AT = 1_700_000_000_000


def record(offset: int, key: bytes | None, document: object, at: int = AT) -> Any:
    value = document if document is None or isinstance(document, bytes) else json.dumps(document).encode()
    return SimpleNamespace(topic="texts", partition=0, offset=offset, timestamp=at, key=key, value=value, headers=[])


def test_the_latest_version_wins_whatever_the_order() -> None:
    first, edit = record(0, b"a", {"id": "a", "text": "one"}), record(1, b"a", {"id": "a", "text": "two"}, AT + 5)
    for log in ([first, edit], [edit, first]):
        (row,) = oracle.expected(log).rows.values()
        assert (row.message, row.created, row.source_id) == ("two", AT, "a")


def test_a_tombstone_deletes_and_a_later_text_comes_back_as_a_new_one() -> None:
    log = [record(0, b"a", {"id": "a", "text": "one"}), record(1, b"a", None)]
    end = oracle.expected(log)
    assert (end.rows, len(end.deletions)) == ({}, 1)
    (row,) = oracle.expected([*log, record(2, b"a", {"id": "a", "text": "two"}, AT + 9)]).rows.values()
    assert (row.message, row.created) == ("two", AT + 9)


def test_the_oracle_and_the_decoder_agree_on_every_record_of_a_load() -> None:
    for offset, sent in enumerate(workload(3, 2_000, 300)):
        given = record(offset, sent.key, sent.value)
        found = oracle.effect(given)
        try:
            decoded = decode(Coordinates("texts", 0, offset, AT), sent.key, sent.value, sent.headers, 100_000)
        except BadRecord as error:
            assert isinstance(found, Bad), sent
            assert found.reason == error.reason, sent
            continue
        assert not isinstance(found, Bad), sent
        assert (found.id, found.version) == (decoded.id, decoded.version)
        assert isinstance(found, Deletion) == (decoded.message is None)
        if isinstance(found, Text):
            assert (found.message, found.source_id) == (decoded.message, decoded.source_id)


def test_the_watch_sees_what_is_committed_and_not_stored(database: Engine) -> None:
    ids = [str(uuid.uuid4()) for _ in range(4)]
    log = [
        record(0, b"", {"id": ids[0], "text": "stored"}),
        record(1, b"", {"id": ids[1], "text": "not stored"}),
        record(2, b"", {"id": ids[2], "text": "deleted later"}),
        record(3, ids[3].encode(), None),
        record(4, b"bad/empty/0", b""),
        record(5, b"bad/empty/1", b""),
        record(6, b"", {"id": ids[0], "text": "an edit that is not stored"}),
    ]
    persist(
        database,
        a_record("stored", (AT, 0, 0), id=ids[0]),
        a_record(None, (AT + 1, 0, 0), id=ids[2]),
        a_record(None, (AT, 0, 3), id=ids[3]),
    )
    letter = a_dead_letter(4)
    with database.begin() as connection:
        dead_letters.note(connection, [letter])
        cursor = connection.connection.cursor()
        assert sorted(not_durable(cursor, log)) == [(0, 1), (0, 5), (0, 6)]


@pytest.mark.parametrize("given", ["a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"])
def test_a_uuid_is_kept_in_lower_case(given: str) -> None:
    assert oracle.identity(given) == (given.lower(), None)
