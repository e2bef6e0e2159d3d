"""Forms that things take on their way: cursors, times, whole numbers, JSON numbers, and the OpenAPI document."""

import json
import re
from decimal import Decimal
from typing import get_args

import pytest
import simplejson
from hypothesis import given
from hypothesis import strategies as st

from api import cursor, schemas
from api.answers import json_answer
from api.app import create_app
from api.parts import Role, readable
from api.search import MAX_WORDS, some_words
from records import INT_DIGITS
from settings import Settings


@pytest.mark.parametrize(
    "created_at",
    [
        "2025-01-31T12:34:56.123456+00:00",
        "2025-01-31T12:34:56.1+00:00",
        "2025-01-31T12:34:56+00:00",
        "1969-12-31T23:59:59.999999+00:00",
        "0001-01-01T00:00:00+00:00",
        "9999-12-31T23:59:59.999999+00:00",
        "12345-01-01T00:00:00+00:00",
        "infinity",
        "-infinity",
    ],
)
def test_a_cursor_comes_back_as_it_went(created_at: str) -> None:
    message_id = "01234567-89ab-cdef-0123-456789abcdef"
    given = cursor.shown((created_at, message_id))
    assert len(given) == 48
    found_at, found_id = cursor.read(given)
    assert found_id == message_id
    assert normal(found_at) == normal(created_at)


def normal(moment: str) -> str:
    """With six digits of a second."""
    if "infinity" in moment:
        return moment
    clock, zone = moment.split("+")
    whole, _, fraction = clock.partition(".")
    return f"{whole}.{fraction:0<6}+{zone}"


@pytest.mark.parametrize(
    "digits", ["1" + "0" * 131_071, "-12" + "0" * 5_000, "7" * (INT_DIGITS + 1), "9" * INT_DIGITS, "1" * 300]
)
def test_integers_are_written_so_that_every_client_can_read_them(digits: str) -> None:
    text = f'{{"a": [{digits}, "{digits}", {digits}.5], "b\\\\": "\\"{digits}"}}'
    shown = readable(text)
    json.loads(shown)
    assert simplejson.loads(shown, use_decimal=True, parse_int=Decimal) == simplejson.loads(
        text, use_decimal=True, parse_int=Decimal
    )
    if len(digits) <= INT_DIGITS:
        assert shown == text


def test_times_before_the_year_1_are_one_place() -> None:
    given = cursor.shown(("0044-03-15T12:00:00+00:00 BC", "01234567-89ab-cdef-0123-456789abcdef"))
    assert cursor.read(given)[0] == "-infinity"


def test_times_that_do_not_fit_are_followed_by_what_is_earlier() -> None:
    given = cursor.shown(("294276-12-31T00:00:00+00:00", "01234567-89ab-cdef-0123-456789abcdef"))
    found_at, _ = cursor.read(given)
    assert found_at.startswith("294247-01-10T")


@given(st.integers(0, 2**64 - 1), st.uuids())
def test_any_48_hex_digits_are_a_cursor(moment: int, message_id: object) -> None:
    found_at, found_id = cursor.read(f"{moment:016x}{str(message_id).replace('-', '')}")
    assert re.fullmatch(r"-?infinity|\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00", found_at)
    assert found_id == str(message_id)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("2025-01-31", "2025-01-31T00:00:00.000000Z"),
        ("2025-01-31T12:00:00Z", "2025-01-31T12:00:00.000000Z"),
        ("2025-01-31T12:00", "2025-01-31T12:00:00.000000Z"),
        ("2025-01-31T12:00Z", "2025-01-31T12:00:00.000000Z"),
        ("2025-01-31t12:00:00.123456000z", "2025-01-31T12:00:00.123456Z"),
        ("2025-01-31t12:00:00.123456789z", "2025-01-31T12:00:00.123457Z"),
        ("2025-01-31T12:00:00.12345600000000000000000000000000000000001Z", "2025-01-31T12:00:00.123457Z"),
        ("2025-01-31T12:00:00,5Z", "2025-01-31T12:00:00.500000Z"),
        ("2025-12-31T23:59:59.9999999Z", "2026-01-01T00:00:00.000000Z"),
        ("2025-01-31 12:00:00", "2025-01-31T12:00:00.000000Z"),
        ("2025-01-31T12:00:00+05:30", "2025-01-31T06:30:00.000000Z"),
        ("2025-01-31T12:00:00-0530", "2025-01-31T17:30:00.000000Z"),
        ("2025-01-31T12:00+01", "2025-01-31T11:00:00.000000Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.999999Z"),
        ("0005-01-01", "0005-01-01T00:00:00.000000Z"),
        ("0001-01-01T00:00:00+14:00", "-infinity"),
        ("9999-12-31T23:59:59-10:00", "infinity"),
        ("9999-12-31T23:59:59.9999999Z", "infinity"),
    ],
)
def test_times_go_to_postgresql_in_utc(text: str, shown: str) -> None:
    assert schemas.instant(text) == shown


def test_json_numbers_keep_every_digit_and_nan_never_leaves() -> None:
    body = '{"a":0.10000000000000000000000001,"b":1.10,"c":12345678901234567890123,"d":1E+400}'
    assert json_answer(simplejson.loads(body, use_decimal=True)).get_data(as_text=True).strip() == body
    for number in (float("nan"), float("inf"), Decimal("NaN")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            json_answer({"a": number})


def test_a_very_long_keyword_search_is_cut() -> None:
    assert some_words('"a  phrase" -not') == '"a  phrase" -not'
    assert some_words("word " * 1000 + "other") == "word other"
    assert len(some_words(" ".join(map(str, range(1000)))).split()) == MAX_WORDS
    assert some_words("c_d_" * 2_500) == "c_d_" * (MAX_WORDS // 2 - 1) + "c_d"
    assert some_words("first " + "a,b " * 10 + "c/" * 100) == "first a,b " + "c/" * (MAX_WORDS - 4) + "c"
    assert some_words('a "b a" a -"a b ' + "a " * 1000) == 'a "b a" -"a b ' + " ".join(["a"] * (MAX_WORDS - 5))
    assert some_words("_ " * 1000 + '"two words"') == "_ " * 1000 + '"two words"'
    assert some_words(" or ".join(map(str, range(100)))) == " or ".join(map(str, range(MAX_WORDS)))
    assert len(some_words("or " * 1000).split()) == 2 * MAX_WORDS - 1
    assert some_words("a b OR a c " + "c " * 1000) == "a b OR a c"
    assert some_words("a b or, a c " + "c " * 1000) == "a b or , a c"
    assert some_words("a - b - c - b " + "a " * 1000) == "a -b -c"


CONTRACT = {
    "text": {
        ("post", "/messages"): {"201", "202", "400", "408", "413", "415", "500", "503"},
        ("post", "/messages/batch"): {"202", "400", "408", "413", "415", "500", "503"},
        ("get", "/messages"): {"200", "400", "500", "503"},
        ("get", "/messages/{id}"): {"200", "404", "500", "503"},
        ("delete", "/messages/{id}"): {"202", "404", "500", "503"},
        ("get", "/trace"): {"200", "400", "404", "500", "503"},
        ("get", "/trace/{id}"): {"200", "404", "500", "503"},
        ("get", "/stats"): {"200", "500", "503"},
        ("get", "/health"): {"200", "500", "503"},
        ("get", "/metrics"): {"200", "500"},
    },
    "search": {
        ("post", "/embeddings/search"): {"200", "400", "408", "413", "415", "500", "503"},
        ("get", "/embeddings/{id}/similar"): {"200", "400", "404", "409", "500", "503"},
        ("get", "/status"): {"200", "500", "503"},
        ("get", "/health"): {"200", "500", "503"},
        ("get", "/metrics"): {"200", "500"},
    },
}


@pytest.mark.parametrize("role", get_args(Role))
def test_the_document_has_every_call_with_every_answer(role: Role) -> None:
    document = create_app(role, Settings()).test_client().get("/openapi.json").json
    assert document is not None
    assert document["openapi"].startswith("3.1.")
    described = {
        (method, path): set(operation["responses"])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    assert described == CONTRACT[role]
    text = json.dumps(document)
    for reference in {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}:
        assert reference in document["components"]["schemas"]


def test_the_docs_page_comes_with_all_its_files() -> None:
    client = create_app("text", Settings()).test_client()
    page = client.get("/docs").text
    loaded = [part.split('"')[0] for part in page.replace('src="', 'href="').split('href="')[1:]]
    assert len(loaded) >= 4
    for path in loaded:
        assert path.startswith("/")
        with client.get(path) as answer:
            assert answer.status_code == 200, path
