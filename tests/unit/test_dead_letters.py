"""Dead letters: what goes to the topic and to the table, whatever key, value and headers the record has."""

import base64
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

import letter_headers
from bridge import dead_letters
from bridge.message import BadRecord
from records import KEPT_BYTES, KEPT_CHARS, KEPT_HEADERS, DeadLetter
from replay import letters as replay_letters
from replay.letters import Letter, Original

ERROR = BadRecord("invalid-json", "no \0 and no \ud800")


class Producer:
    """Takes what kafka-python's producer takes, and keeps it."""

    def send(
        self, topic: str, *, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
    ) -> "Producer":
        assert all(issubclass(type(name), str) and type(content) is bytes for name, content in headers)
        size = len(value or b"") + len(key or b"")
        size += sum(len(name.encode()) + len(content) + 10 for name, content in headers)
        assert size <= dead_letters.RECORD_BYTES + 1000
        self.size = size
        self.value, self.key, self.headers, self.pairs = value, key, dict(headers), headers
        return self


def a_record(value: bytes | None = b"{", key: bytes | None = None, headers: Sequence[tuple[str, Any]] = ()) -> Any:
    return SimpleNamespace(
        topic="t", partition=2, offset=7, timestamp=1000, key=key, value=value, headers=list(headers)
    )


def sent(record: Any) -> Producer:
    producer = Producer()
    dead_letters.send(producer, "t.dead-letters", record, ERROR)
    return producer


def test_bytes_key_and_headers_go_unchanged_with_reason_and_coordinates() -> None:
    letter = sent(a_record(b"\xff", b"\0", [("h", b"\xfe")]))
    assert (letter.value, letter.key, letter.headers["h"]) == (b"\xff", b"\0", b"\xfe")
    assert {name: value for name, value in letter.headers.items() if name.startswith("dead-letter-")} == {
        "dead-letter-reason": b"invalid-json",
        "dead-letter-detail": b"no \\0 and no \\ud800",
        "dead-letter-topic": b"t",
        "dead-letter-partition": b"2",
        "dead-letter-offset": b"7",
        "dead-letter-timestamp": b"1000",
    }


def test_null_headers_are_marked_by_their_places() -> None:
    letter = sent(a_record(headers=[("a", None), ("dead-letter-x", b"1"), ("b", b""), ("c,d", None)]))
    assert (letter.headers["a"], letter.headers["b"]) == (b"", b"")
    assert letter.headers["dead-letter-null-headers"] == b"0,2"


def test_header_names_that_are_not_utf_8_are_marked_by_their_places() -> None:
    own = letter_headers.NotUtf8("\\xff")
    letter = sent(a_record(headers=[("dead-letter-x", b"1"), ("\\xff", b""), (own, b"v"), ("a", None), (own, None)]))
    assert letter.headers["dead-letter-renamed-headers"] == b"1,3"
    assert letter.headers["dead-letter-null-headers"] == b"2,3"
    assert [name for name, _ in letter.pairs[:4]] == ["\\xff", "\\xff", "a", "\\xff"]
    assert "dead-letter-renamed-headers" not in sent(a_record(headers=[("\\xff", b"")])).headers


def test_headers_that_an_earlier_release_marked_by_name_come_back() -> None:
    headers = [("a", b""), ("7", b""), ("b", b""), ("dead-letter-null-headers", b"a,7")]
    assert letter_headers.as_they_were(headers)[:3] == [("a", None), ("7", None), ("b", b"")]


@pytest.mark.parametrize(
    "record",
    [
        a_record(b"x" * 5_000_000, b"key"),
        a_record(b"x", b"k" * 5_000_000),
        a_record(b"x", None, [("h", b"v" * 5_000_000)]),
        a_record(b"x", None, [(f"h{number}", b"v") for number in range(200_000)]),
        a_record(b"x" * 5_000_000, b"k" * 5_000_000, [("h", b"v" * 5_000_000)]),
        a_record(None, b"k" * 5_000_000),
        a_record(b"x" * 805_000, None, [("\U0001f600" * 60_000, b"")]),
    ],
)
def test_a_record_beyond_the_limit_goes_cut_and_says_so(record: Any) -> None:
    letter = sent(record)
    assert b"bytes" in letter.headers["dead-letter-cut"]
    assert letter.headers["dead-letter-offset"] == b"7"


@pytest.mark.parametrize(
    "record",
    [
        a_record(b"v" * 300_000, b"key", [("h", b"v")]),
        a_record(None, b"k" * 300_000),
        a_record(b"v" * 100_000, None, [("h", None)] * 20_000),
        a_record(b"v" * 100_000, None, [(letter_headers.NotUtf8("\\xff"), b"")] * 20_000),
        a_record(b"v" * 5_000_000),
        a_record(b"{"),
        a_record(None, None),
    ],
)
def test_what_is_still_too_large_goes_by_halves_down_to_the_bridge_s_own_headers(record: Any) -> None:
    own = len(str(sent(a_record()).pairs)) + 200
    most = dead_letters.RECORD_BYTES
    before = dead_letters.size(record.key) + dead_letters.size(record.value) + dead_letters.sizes(record.headers)
    for _ in range(12):
        before, most = most if most < dead_letters.RECORD_BYTES else before, dead_letters.less(record, most)
        assert most <= before // 2
        letter = Producer()
        dead_letters.send(letter, "t.dead-letters", record, ERROR, most)
        assert letter.size <= most + own
        assert b"bytes" in letter.headers["dead-letter-cut"]
        assert letter.headers["dead-letter-offset"] == b"7"
        if not most:
            break
    assert most == 0
    assert not letter.key
    assert not letter.value
    assert all(name.startswith("dead-letter-") for name in letter.headers)


def test_the_note_has_the_beginning_of_the_value_and_its_whole_length() -> None:
    note = dead_letters.note(a_record(b"x" * 100_000, None, [("n", None), ("\0\ud800", b"\xff")]), "r", "d\0")
    assert base64.b64decode(note.value or "") == b"x" * KEPT_BYTES
    assert (note.value_bytes, note.key, note.detail) == (100_000, None, "d\\0")
    assert note.headers == [("n", None), ("\\0\\ud800", "/w==")]


def test_a_replay_that_fails_again_keeps_its_first_coordinates() -> None:
    first = [(f"dead-letter-{name}", value) for name, value in (("topic", b"t"), ("partition", b"0"), ("offset", b"3"))]
    record = a_record(headers=[*first, ("dead-letter-timestamp", b"900"), ("dead-letter-reason", b"old")])
    note = dead_letters.note(record, "r", "d")
    assert (note.partition, note.offset, note.timestamp, note.again) == (0, 3, 900, True)
    letter = sent(record)
    assert (letter.headers["dead-letter-offset"], letter.headers["dead-letter-reason"]) == (b"3", b"invalid-json")


@pytest.mark.parametrize(
    "record",
    [
        a_record(),
        a_record(None, b"k"),
        a_record(b"", b""),
        a_record(b"", None),
        a_record(None, None),
        a_record(None, None, [("a", None), ("b", b"")]),
        a_record(headers=[("n\0", b"v"), ("x" * 600, b""), ("é", None)]),
        a_record(headers=[("h", b""), ("h", None), ("h", b"v"), ("h", None), ("h", b""), ("i,j", None)]),
        a_record(headers=[("h", None)] * 5_000),
    ],
)
def test_a_record_comes_back_from_its_copy_as_it_was(monkeypatch: pytest.MonkeyPatch, record: Any) -> None:
    letter = sent(record)
    copy = SimpleNamespace(key=letter.key, value=letter.value, headers=letter.pairs)
    monkeypatch.setattr(replay_letters, "follow", lambda *_, **__: iter([copy]))
    ((found, original),) = replay_letters.copies(None, [], [Letter("t", 2, 7, 1000)])
    assert found.name == "t:2:7"
    own = [header for header in original.headers if not header[0].startswith("dead-letter-")]
    assert original._replace(headers=own) == Original(record.key, record.value, record.headers)


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("trace", True),
        ("x" * (KEPT_CHARS - 1), True),
        ("\\xff of a name that is no UTF-8", True),
        ("x" * KEPT_CHARS, False),
        ("x" * (KEPT_CHARS + 1), False),
        ("n\0n", False),
        ("n\\0n", False),
        ("\ud800", False),
    ],
)
def test_a_row_is_whole_only_where_its_header_names_are_surely_those_that_came(name: str, kept: bool) -> None:
    note = dead_letters.note(a_record(headers=[(name, b"v")]), "r", "d")
    assert replay_letters.whole(row_of(note)) == (Original(None, b"{", [(name, b"v")]) if kept else None)


def row_of(note: DeadLetter) -> dict[str, Any]:
    """What the database makes of a note."""

    def decoded(content: str | None) -> bytes | None:
        return None if content is None else base64.b64decode(content)

    return note._asdict() | {"key": decoded(note.key), "value": decoded(note.value)}


# The longest that was surely not cut, what may have been, and what was.
UNDER, AT, OVER = KEPT_BYTES - 1, KEPT_BYTES, KEPT_BYTES + 1


@pytest.mark.parametrize(
    ("record", "kept"),
    [
        *((a_record(b"v" * size), size <= AT) for size in (0, UNDER, AT, OVER)),
        *((a_record(key=b"k" * size), size < AT) for size in (0, UNDER, AT, OVER)),
        *((a_record(headers=[("h", b"c" * size)]), size < AT) for size in (0, UNDER, AT, OVER)),
        *(
            (a_record(headers=[(f"h{number}", None) for number in range(count)]), count < KEPT_HEADERS)
            for count in (0, KEPT_HEADERS - 1, KEPT_HEADERS, KEPT_HEADERS + 1)
        ),
        *(
            (a_record(headers=[(letter * size, b"c")]), size < KEPT_CHARS)
            for letter in ("x", "\U0001f600")
            for size in (1, KEPT_CHARS - 1, KEPT_CHARS, KEPT_CHARS + 1)
        ),
        (a_record(headers=[("x" * (KEPT_CHARS - 1) + "\0", b"c")]), False),
        (a_record(b"v" * AT, b"k" * UNDER, [("x" * (KEPT_CHARS - 1), b"c" * UNDER)] * (KEPT_HEADERS - 1)), True),
        (a_record(None, None), True),
    ],
)
def test_a_row_gives_the_record_as_it_came_or_nothing_at_sizes_around_each_limit(record: Any, kept: bool) -> None:
    found = replay_letters.whole(row_of(dead_letters.note(record, "r", "d")))
    assert found == (Original(record.key, record.value, record.headers) if kept else None)
