"""The second try of a dead letter: where its bytes come from, and which headers it carries."""

import argparse
import base64
from collections.abc import Iterator
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine

from bridge.message import first_coming
from clients import database, drop
from letter_headers import Coordinates
from records import KEPT_BYTES, KEPT_HEADERS
from replay import letters as replay_letters
from replay.letters import Letter, Original, copies, letter_of, originals, replay_headers, whole
from settings import Settings

LETTER = Letter("text-messages", 2, 1041, 1_700_000_000_000)


def encoded(content: bytes) -> str:
    return base64.b64encode(content).decode()


def row(**changes: Any) -> dict[str, Any]:
    return {"key": b"k", "value": b"v", "value_bytes": 1, "headers": [["h", encoded(b"x")], ["n", None]], **changes}


def record(offset: int, timestamp: int, *, value: bytes | None = b"v", headers: list[Any] | None = None) -> Any:
    return SimpleNamespace(offset=offset, timestamp=timestamp, key=b"k", value=value, headers=headers or [])


def test_a_second_try_carries_the_place_of_the_first_and_the_headers_of_its_sender() -> None:
    headers = replay_headers(LETTER, [("trace", b"1"), ("trace", b"2"), ("empty", None), ("dead-letter-reason", b"x")])
    assert headers == [
        ("trace", b"1"),
        ("trace", b"2"),
        ("empty", b""),
        ("dead-letter-topic", b"text-messages"),
        ("dead-letter-partition", b"2"),
        ("dead-letter-offset", b"1041"),
        ("dead-letter-timestamp", b"1700000000000"),
    ]


def test_the_bridge_reads_that_place_from_the_headers() -> None:
    now = Coordinates("text-messages", 2, 5000, 1_800_000_000_000)
    assert first_coming(now, replay_headers(LETTER, [])) == Coordinates(*LETTER)


def test_a_row_that_holds_all_of_the_record_is_enough() -> None:
    assert whole(row()) == Original(b"k", b"v", [("h", b"x"), ("n", None)])
    assert whole(row(key=None, value=None, value_bytes=None, headers=[])) == Original(None, None, [])
    assert whole(row(value=memoryview(b"v"))) == Original(b"k", b"v", [("h", b"x"), ("n", None)])


@pytest.mark.parametrize(
    "changes",
    [
        {"value_bytes": 2},
        {"value": b"x" * KEPT_BYTES, "value_bytes": KEPT_BYTES + 1},
        {"key": b"x" * KEPT_BYTES},
        {"headers": [["h", encoded(b"x" * KEPT_BYTES)]]},
        {"headers": [["h", None]] * KEPT_HEADERS},
    ],
)
def test_a_row_that_may_hold_a_part_is_not(changes: dict[str, Any]) -> None:
    assert whole(row(**changes)) is None


def test_only_the_same_record_of_the_log_is_the_original(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def at_offsets(consumer: object, partition: tuple[str, int], offsets: Any) -> Iterator[Any]:
        asked.append((tuple(partition), list(offsets)))
        yield from [record(1, 100), record(2, 999)]

    monkeypatch.setattr(replay_letters, "at_offsets", at_offsets)
    letters = [Letter("t", 0, 2, 200), Letter("t", 0, 1, 100)]
    found = list(originals(None, letters))
    assert found == [(Letter("t", 0, 1, 100), Original(b"k", b"v", []))]
    assert asked == [(("t", 0), [1, 2])]


def test_a_copy_in_the_dead_letter_topic_counts_once_and_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def headers(letter: Letter, *more: tuple[str, bytes]) -> list[tuple[str, bytes]]:
        return [*replay_headers(letter, []), ("own", b"h"), *more]

    cut, twice, other = (Letter("t", 0, offset, 5) for offset in range(3))
    topic = [
        record(0, 9),
        record(1, 9, headers=headers(cut, ("dead-letter-cut", b"value 2000000 bytes"))),
        record(2, 9, headers=headers(twice)),
        record(3, 9, headers=headers(twice)),
        record(4, 9, headers=headers(other)),
    ]
    monkeypatch.setattr(replay_letters, "follow", lambda *_, **__: iter(topic))
    found = list(copies(None, [], [cut, twice]))
    assert [letter for letter, _ in found] == [twice]
    assert replay_headers(twice, found[0][1].headers)[0] == ("own", b"h")


@pytest.mark.parametrize("headers", [[], [("dead-letter-topic", b"t")], [("dead-letter-partition", b"x")]])
def test_a_record_without_such_headers_is_no_dead_letter(headers: list[tuple[str, bytes]]) -> None:
    assert letter_of(record(0, 0, headers=headers)) is None


def test_what_comes_while_somebody_is_asked_is_not_dropped_unseen(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = [
        {"reason": "invalid-json", "count": 2, "newest": "12:00"},
        {"reason": "rejected", "count": 1, "newest": "13:00"},
    ]
    monkeypatch.setattr("clients.database.connect", lambda _settings: nullcontext())
    monkeypatch.setattr("db.dead_letter_queries.counts", lambda _connection: counted)
    for asked, until, count in ((None, "13:00", 3), ("invalid-json", "12:00", 2), ("invalid-id", None, 0)):
        given = argparse.Namespace(letters=[], all=asked is None, reason=asked)
        assert drop.choose(given, Settings()) == ({"why": asked, "until": until}, count, [])


def test_what_a_command_decides_by_is_read_from_the_primary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several hosts libpq takes the first that answers, which may be a standby that lags."""
    asked: list[str] = []

    def connect_engine(url: str, *_: object, **__: object) -> Engine:
        asked.append(url)
        return create_engine("sqlite://")

    monkeypatch.setattr("db.session.connect_engine", connect_engine)
    with database.connect(Settings(database_host="one,two")):
        pass
    assert asked[0].endswith("?target_session_attrs=primary")
