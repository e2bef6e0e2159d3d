"""How the console shows bytes, hits, rates and freshness; no server is needed."""

import re
import time
from base64 import b64encode

import pytest
from flask import render_template

from api.app import create_app
from api.console import shown, throughput
from api.console.shown import Piece
from api.console.state import facts
from api.pipeline_numbers import numbers_in
from records import iso_time
from settings import Settings
from telemetry.numbers import CONSUMED, EMBEDDED, FRESHNESS, PERSISTED, Tally, field


@pytest.mark.parametrize(
    ("content", "pieces"),
    [
        (b"plain\ttext\n", [("plain\ttext\n", "")]),
        (b"", []),
        (b"a\xffb", [("a", ""), ("\\xff", "byte"), ("b", "")]),
        (b"\xff\xfe", [("\\xff\\xfe", "byte")]),
        ("a\u202eb".encode(), [("a", ""), ("U+202E", "hidden"), ("b", "")]),
        (b"\x00\x1b", [("U+0000", "hidden"), ("U+001B", "hidden")]),
        ("👩\u200d🚀".encode(), [("👩\u200d🚀", "")]),
        (b"a" + b"\x01" * 60_000, [("a", ""), ("U+0001 ×60,000", "hidden")]),
        ("\ud800".encode(errors="surrogatepass"), [("\\xed\\xa0\\x80", "byte")]),
    ],
)
def test_bytes_are_shown_whatever_they_are(content: bytes, pieces: list[Piece]) -> None:
    assert shown.record_bytes(content) == pieces


def test_of_many_bytes_some_are_shown() -> None:
    for content in (b"\xff", b"x", b"a\xff", b"\x01\x02", "ж".encode()):
        pieces = shown.record_bytes(content * 100_000, 100)
        assert 100 < len(text_of(pieces)) < 110
        assert pieces[-1] == ("…", "")


@pytest.mark.parametrize("content", [b"a\xff", b"\x01\x02", b"\x00\xff"])
def test_no_record_has_more_pieces_than_a_browser_can_lay_out(content: bytes) -> None:
    began = time.process_time()
    assert len(shown.record_bytes(content * 40_000)) <= shown.PIECES + 1
    assert time.process_time() - began < 0.5


def test_a_text_is_shown_whole_and_says_where_it_goes_on() -> None:
    kept = "x" * shown.RECORD_CHARS
    assert shown.record_bytes(kept.encode(), size=len(kept)) == [(kept, "")]
    assert shown.record_bytes(b"abc", 300, 4) == [("abc", ""), ("…", "")]
    assert shown.record_bytes(b"abc", 2, 3) == [("ab", ""), ("…", "")]


def test_the_headers_of_a_letter_are_marked_like_its_key() -> None:
    headers = [
        ["a\u202eb", b64encode(b"\x00\xff").decode()],
        ["\ud800", None],
        ["U+0000", b64encode(b"U+0000").decode()],
    ]
    letter = {"timestamp": 5, "state": "open", "key": b"k", "value": b"v", "value_bytes": 1, "headers": headers}
    with create_app("search", Settings()).test_request_context():
        page = render_template("console/letter.html", letter=letter, record_chars=9)
    assert re.findall("<code><bdi>(.*?)</bdi>: <bdi>(.*?)</bdi></code>", page) == [
        (
            'a<span class="hidden">U+202E</span>b',
            '<span class="hidden">U+0000</span><span class="byte">\\xff</span>',
        ),
        ('<span class="byte">\\xed\\xa0\\x80</span>', "<i>none</i>"),
        ("U+0000", "U+0000"),
    ]


def test_an_age_that_changes_is_not_told_anew_with_its_problem() -> None:
    def page(age: float | None) -> str:
        problems = [{"part": "Redis", "problem": "it hangs", "age": age}]
        with create_app("search", Settings()).test_request_context():
            return render_template("console/problems.html", problems=problems)

    told = re.compile('<div id="problems" role="status">(.*?)</div>', re.DOTALL)
    first, later = told.search(page(5)), told.search(page(7))
    assert first
    assert later
    assert first[1] == later[1]
    assert "it hangs" in first[1]
    assert "The numbers of Redis here are 5.0 s old." in page(5)
    assert "Its numbers are not known." in page(None)
    assert "old." not in page(None)


def text_of(pieces: list[Piece]) -> str:
    return "".join(text for text, _ in pieces)


def test_a_hit_marks_words_and_the_passage_that_is_a_part() -> None:
    message = "before. " * 30 + "the cat sat here. " + "after. " * 30
    pieces = shown.hit_text(message, "the cat sat here. ", {"cat"})
    assert [piece for piece in pieces if piece[1] in ("word", "passage")] == [
        ("the ", "passage"),
        ("cat", "word"),
        (" sat here. ", "passage"),
    ]
    assert [kind for _, kind in pieces] == ["around", "passage", "word", "passage", "around"]
    assert pieces[0][0].startswith("…")
    assert pieces[-1][0].endswith("…")


def test_a_passage_that_is_all_of_the_message_is_not_marked() -> None:
    assert shown.hit_text("the cat", "the cat", {"cat"}) == [("the ", ""), ("cat", "word")]


def test_markup_stays_where_the_passage_is_not_in_the_message_to_the_letter() -> None:
    message = "<b>x</b> " * 500 + "needle <script> " + "<b>y</b> " * 500
    pieces = shown.hit_text(message, "x needle y", {"needle"})
    assert "needle <script>" in text_of(pieces)
    assert len(text_of(pieces)) < 1_000


def test_what_fits_is_shown_once_and_to_the_letter() -> None:
    assert text_of(shown.hit_text("a < b & c", "a < b & c", {"b", "c"})) == "a < b & c"


@pytest.mark.parametrize(
    ("number", "said"),
    [(None, "–"), (0.0123, "12 ms"), (2.34, "2.3 s"), (600, "10 min"), (10_000, "3 h"), (10**6, "12 d")],
)
def test_seconds_for_people(number: float | None, said: str) -> None:
    assert shown.seconds(number) == said


@pytest.mark.parametrize(("number", "said"), [(0, "0"), (0.25, "0.2"), (12.6, "13"), (12_345.0, "12,345"), (None, "–")])
def test_rates_for_people(number: float | None, said: str) -> None:
    assert shown.rate(number) == said


@pytest.mark.parametrize(
    ("iso", "said"),
    [
        (None, ""),
        ("2025-01-31T12:34:56.123+00:00", "2025-01-31 12:34:56 UTC"),
        ("20000-01-01T00:00:05+00:00", "20000-01-01 00:00:05 UTC"),
        ("infinity", "infinity"),
    ],
)
def test_times_of_a_page_without_scripts(iso: str | None, said: str) -> None:
    assert shown.clock(iso) == said


@pytest.mark.parametrize("timestamp", [10**18, -(10**18)])
def test_a_time_that_no_calendar_has_is_none(timestamp: int) -> None:
    assert iso_time(timestamp) is None


def test_rates_are_of_whole_spans_and_add_up_labels() -> None:
    stored = {field(PERSISTED, ["stored"]): 60.0, field(PERSISTED, ["rejected"]): 40.0}
    spans = [(0, {}), (5, {CONSUMED.name: 50.0}), (10, {CONSUMED.name: 150.0, **stored}), (15, {CONSUMED.name: 9e9})]
    measured = throughput.measure(spans)
    assert measured.times == [0, 5, 10]
    assert measured.series["read"] == [0, 10, 30]
    assert measured.now == {"read": 20, "stored": 10, "embedded": 0}
    assert measured.median_freshness is None


def test_freshness_lies_between_the_bounds_of_its_bucket() -> None:
    tally = Tally()
    tally.observe(FRESHNESS, [0.06] * 50 + [0.7] * 50)
    taken = tally.take()
    found = throughput.measure([(0, taken), (5, {})])
    assert found.median_freshness == pytest.approx(0.1)
    assert found.slow_freshness == pytest.approx(0.95)
    tally.observe(FRESHNESS, [1e9])
    assert throughput.measure([(0, tally.take()), (5, {})]).median_freshness == FRESHNESS.buckets[-1]


def test_a_tally_keeps_what_could_not_be_delivered() -> None:
    tally = Tally()
    tally.add(EMBEDDED, 3)
    taken = tally.take()
    tally.add(EMBEDDED, 4)
    tally.put_back(taken)
    assert tally.take() == {"embedded_messages": 7}
    assert tally.take() == {}


def test_whatever_the_status_says_of_the_index_is_listed() -> None:
    index = {"kind": "hnsw", "parts": [1, 2, 3], "building": True, "open": {"vectors": 5, "share": 0.5}, "x": None}
    assert dict(numbers_in(index)) == {"parts": 3, "building": 1, "open.vectors": 5, "open.share": 0.5}
    status = {"status": "up_to_date", "pending": 0, "index": index, "reembedding": {"done": 1}, "z": 1, "y": None}
    assert [name for name, _ in facts(status)] == ["index", "z"]


def test_the_console_says_what_takes_too_long_to_count() -> None:
    change = {"state": "embedding", "model": "new", "done": None, "total": None, "failed": None, "problem": None}
    status = {"model": "active", "dimensions": 4, "pending": 9, "embedded": None, "index": None, "reembedding": change}
    app = create_app("search", Settings())
    with app.test_request_context():
        page = " ".join(render_template("console/index.html", index=status, facts=[]).split())
    assert page.count("counting takes too long") == 3
    assert "progress" not in page


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (
            "embedding",
            ["new model", "<bdi>new</bdi>: embedding, 12,345 of 50,000", 'value="12345"', "3 failed", "no &lt;key"],
        ),
        ("switched", ["kept for an undo", "<bdi>old</bdi>"]),
    ],
)
def test_the_console_shows_a_change_of_the_model(state: str, told: list[str]) -> None:
    change = {"state": state, "model": "new", "from_model": "old", "done": 12_345, "total": 50_000, "failed": 3}
    status = {"model": "active", "dimensions": 4, "pending": 0, "reembedding": change | {"problem": "no <key"}}
    app = create_app("search", Settings())
    with app.test_request_context():
        page = " ".join(render_template("console/index.html", index=status, facts=[]).split())
    assert [part for part in told if part not in page] == []
    assert ("progress" in page) == (state != "switched")
