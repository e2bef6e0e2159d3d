"""Decoding: each record is accepted to the letter or has exactly one reason, whatever its bytes."""

import json
import uuid

import pytest
import simplejson
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.message import NAMESPACE, BadRecord, decode, message_id
from letter_headers import Coordinates
from records import REASONS, Record

AT = Coordinates("text-messages", 3, 42, 1_700_000_000_000)
MAX = 100


def decoded(
    value: bytes | None, key: bytes | None = None, headers: list[tuple[str, bytes | None]] | None = None
) -> Record:
    return decode(AT, key, value, headers or [], MAX)


def reason(value: bytes | None, key: bytes | None = None) -> str:
    with pytest.raises(BadRecord) as caught:
        decoded(value, key)
    return caught.value.reason


def test_a_plain_record() -> None:
    record = decoded(b'{"id": "test-123", "text": "Hello", "metadata": {"a": [1, null]}, "unknown": {}}')
    assert record.source_id == "test-123"
    assert record.id == str(uuid.uuid5(NAMESPACE, "test-123"))
    assert (record.message, record.metadata) == ("Hello", '{"a":[1,null]}')
    assert record.version == (AT.timestamp, AT.partition, AT.offset)


def test_a_canonical_uuid_is_kept_in_lower_case_without_source_id() -> None:
    assert message_id("A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11") == ("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", None)


@pytest.mark.parametrize(
    "other",
    [
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}",
        "urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\n",
        "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a1٣",
        " ",
        "x" * 255,
        "😀" * 255,
    ],
)
def test_any_other_string_is_mapped_and_kept_as_source_id(other: str) -> None:
    assert message_id(other) == (str(uuid.uuid5(NAMESPACE, other)), other)


def test_no_id_and_null_come_from_the_coordinates() -> None:
    expected = str(uuid.uuid5(NAMESPACE, f"text-messages/3/42/{AT.timestamp}"))
    assert decoded(b'{"text": "x"}').id == decoded(b'{"id": null, "text": "x"}').id == expected
    assert decoded(b'{"text": "x"}').source_id is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"", "invalid-json"),
        (b" ", "invalid-json"),
        (b"{", "invalid-json"),
        (b"{'id': 1}", "invalid-json"),
        (b'{"text": "a"} trailing', "invalid-json"),
        (b'{"text": "a", "n": NaN}', "invalid-json"),
        (b'{"text": "a", "n": -Infinity}', "invalid-json"),
        (b'{"text": "a", "n": 1e99999999999999999999}', "invalid-json"),
        (b'{"text": "tab\tinside"}', "invalid-json"),
        (b'\xef\xbb\xbf{"text": "a"}', "invalid-json"),
        ('{"text": "a"}'.encode("utf-16"), "invalid-unicode"),
        ('{"text": "a"}'.encode("utf-16-le"), "invalid-json"),
        (b"[" * 100_000, "invalid-json"),
        (b'{"a":' * 100_000, "invalid-json"),
        (b'{"text": "\xff"}', "invalid-unicode"),
        (b'{"text": "\xed\xa0\x80"}', "invalid-unicode"),
        (b'{"text": "\xc0\xaf"}', "invalid-unicode"),
        (b'{"text": "\\ud800"}', "invalid-unicode"),
        (b'{"text": "\\udc00\\ud800"}', "invalid-unicode"),
        (b'{"id": "\\udfff", "text": "a"}', "invalid-unicode"),
        (b'{"text": "a", "metadata": {"k": "\\ud800"}}', "invalid-unicode"),
        (b'{"text": "a", "metadata": {"\\ud800": 1}}', "invalid-unicode"),
        (b'{"text": "a\\u0000b"}', "nul-character"),
        (b'{"id": "a\\u0000", "text": "a"}', "nul-character"),
        (b'{"text": "a", "metadata": {"k": ["\\u0000"]}}', "nul-character"),
        (b'{"text": "a", "metadata": {"\\u0000": 1}}', "nul-character"),
        (b'{"text": "a", "metadata": {"k": "\\\\\\u0000"}}', "nul-character"),
        (b"[]", "not-an-object"),
        (b'"text"', "not-an-object"),
        (b"null", "not-an-object"),
        (b"1", "not-an-object"),
        (b"1.5", "not-an-object"),
        (b"true", "not-an-object"),
        (b'{"id": 5, "text": "a"}', "invalid-id"),
        (b'{"id": "", "text": "a"}', "invalid-id"),
        (b'{"id": {}, "text": "a"}', "invalid-id"),
        (b'{"id": false, "text": "a"}', "invalid-id"),
        (json.dumps({"id": "x" * 256, "text": "a"}).encode(), "invalid-id"),
        (b"{}", "missing-text"),
        (b'{"text": null}', "missing-text"),
        (b'{"message": "a"}', "missing-text"),
        (b'{"text": 5}', "invalid-text"),
        (b'{"text": ["a"]}', "invalid-text"),
        (b'{"text": ""}', "invalid-text"),
        (b'{"text": " \\t\\n\\u3000"}', "invalid-text"),
        (json.dumps({"text": "x" * (MAX + 1)}).encode(), "text-too-long"),
        (b'{"text": "a", "metadata": {"n": [1e200000]}}', "rejected"),
        (b'{"text": "a", "metadata": {"n": 1e-20000}}', "rejected"),
        (b'{"text": "a", "metadata": {"n": [' + b", ".join([b"1e131071"] * 8) + b"]}}", "rejected"),
        (b'{"text": "a", "metadata": {"n": [' + b", ".join([b"1e-16383"] * 62) + b"]}}", "rejected"),
        (b'{"text": "a", "metadata": []}', "invalid-metadata"),
        (b'{"text": "a", "metadata": "x"}', "invalid-metadata"),
        (b'{"text": "a", "metadata": 0}', "invalid-metadata"),
    ],
)
def test_reasons(value: bytes, expected: str) -> None:
    assert reason(value) == expected


@pytest.mark.parametrize(
    "text",
    [
        "x" * MAX,
        "😀" * MAX,
        "a\u0001\u001f\x7f",
        "\ufeffa",
        "<script>alert(1)</script>",
        "\\u0000 as six letters",
        " a ",
    ],
)
def test_texts_are_kept_to_the_letter(text: str) -> None:
    assert decoded(json.dumps({"text": text}).encode()).message == text
    assert decoded(json.dumps({"text": text}, ensure_ascii=False).encode()).message == text


@pytest.mark.parametrize(
    "metadata",
    ['{"n":1.50}', '{"n":0.12345678901234567890123}', '{"n":' + "9" * 5000 + "}", '{"n":1E+400}', '{"k":"\\\\u0000"}'],
)
def test_numbers_and_backslashes_of_metadata_are_kept(metadata: str) -> None:
    assert decoded(b'{"text": "a", "metadata": ' + metadata.encode() + b"}").metadata == metadata


def test_of_duplicate_keys_the_last_counts() -> None:
    assert decoded(b'{"text": "a", "text": "b"}').message == "b"


def test_a_tombstone_takes_its_id_from_the_key_in_either_form() -> None:
    assert decoded(None, b"test-123")[:3] == (str(uuid.uuid5(NAMESPACE, "test-123")), "test-123", None)
    assert decoded(None, b"A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11").id == "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (None, "invalid-id"),
        (b"", "invalid-id"),
        (b"x" * 256, "invalid-id"),
        (b"\xff", "invalid-unicode"),
        (b"\0", "nul-character"),
    ],
)
def test_a_tombstone_needs_a_usable_key(key: bytes | None, expected: str) -> None:
    assert reason(None, key) == expected


def replay_headers(**changes: bytes) -> list[tuple[str, bytes | None]]:
    values = {"topic": b"text-messages", "partition": b"1", "offset": b"7", "timestamp": b"1600000000000"} | changes
    return [(f"dead-letter-{name}", value) for name, value in values.items()]


def test_a_replay_keeps_the_version_and_the_id_of_its_first_coming() -> None:
    record = decoded(b'{"text": "x"}', headers=replay_headers())
    assert record.version == (1_600_000_000_000, 1, 7)
    assert record.replayed == ("text-messages", 1, 7)
    assert record.id == str(uuid.uuid5(NAMESPACE, "text-messages/1/7/1600000000000"))


def test_a_replay_under_a_clock_that_was_set_back_closes_its_letter_and_makes_no_second_text() -> None:
    headers = replay_headers(timestamp=b"1800000000000")
    here = AT._replace(partition=1)
    once, again = (decode(at, None, b'{"text": "x"}', headers, 100) for at in (here, here._replace(offset=50)))
    assert once.replayed == again.replayed == ("text-messages", 1, 7)
    assert once.id == again.id
    assert once.version == here.version, "never later than it is"


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": b"1800000000000", "partition": b"0"},
        {"timestamp": b"1800000000000", "offset": b"1000000"},
        {"timestamp": b"99999999999999999999"},
        {"topic": b"another"},
        {"topic": b"\xff"},
        {"partition": b"x"},
        {"partition": b"-1"},
        {"offset": b"99999999999999999999"},
        {"offset": "٧".encode("utf-16")},
    ],
)
def test_made_up_replay_headers_are_no_way_to_a_later_version(changes: dict[str, bytes]) -> None:
    record = decoded(b'{"text": "x"}', headers=replay_headers(**changes))
    assert record.version == (AT.timestamp, AT.partition, AT.offset)
    assert record.replayed is None


@given(st.binary(max_size=200), st.one_of(st.none(), st.binary(max_size=20)))
def test_any_bytes_are_decoded_or_have_a_reason(value: bytes, key: bytes | None) -> None:
    try:
        decoded(value, key)
    except BadRecord as error:
        assert error.reason in REASONS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.fixed_dictionaries({}, optional={"id": JSON, "text": JSON, "metadata": JSON, "other": JSON}))
def test_any_document_is_kept_to_the_letter_or_has_a_reason(document: dict[str, object]) -> None:
    try:
        record = decoded(json.dumps(document).encode())
    except BadRecord as error:
        assert error.reason in REASONS
        return
    assert record.message == document["text"]
    stored = None if record.metadata is None else simplejson.loads(record.metadata)
    assert stored == document.get("metadata")
