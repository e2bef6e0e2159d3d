"""Fuzzing of the decoder: damaged records, odd JSON and any headers end in a Record that is true to the bytes, or in
one of the reasons.

What a record says is read a second time here, by the standard library alone; the two readings must agree.
"""

import json
import random
import re
import sys
import uuid
from decimal import Decimal

import pytest
import simplejson
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bridge.message import NAMESPACE, BadRecord, decode, decode_plain, parse
from letter_headers import Coordinates
from records import REASONS, Record

AT = Coordinates("text-messages", 3, 42, 1_700_000_000_000)
MAX = 60
Headers = list[tuple[str, bytes | None]]

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

SEEDS = [
    b'{"id": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11", "text": "as most are", "of": {"no": [1, 2.5, "account"]}}',
    b'{"id": "test-123", "text": "Hello from Kafka", "metadata": {"source": "f", "n": [1, -2.50, 1e-7, null, true]}}',
    b'{"id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "text": "\\u00fc \\ud83d\\ude00 \\n \\\\u0000"}',
    '{"text": "gr\u00fc\u00df dich \U0001f600", "metadata": {"\u00fc": "\u202e\u200b"}}'.encode(),
    b'{"id": null, "text": "a", "text": "b", "metadata": {"k": 1, "k": 1.10}}',
    b'{"text": "x", "metadata": {"a": {"b": {"c": [[[[{}]]]]}}}}',
]
# What breaks readers of JSON and of UTF-8, to be put into any place of a record.
POISON = [
    *(b"\0", b"\\u0000", b"\\ud800", b"\\udfff\\ud800", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xe2\x80\xa8", b"\x1b[2J", b"\x7f", b"\x85", b"\r\n", b"\x01"),
    *(b"NaN", b"-Infinity", b"1e400", b"-0", b"-0.0", b"1E-400", b"9" * 400, b"0x10", b"01", b"1.", b"null", b"true"),
    *(b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"/*", b"[" * 3000, b'{"a":' * 3000, b'"id":"', b'"text":'),
]


def checked(value: bytes | None, key: bytes | None = None, headers: Headers | None = None) -> Record | BadRecord:
    """What comes of a record, looked at closely."""
    plain = decode_plain(AT, value, MAX) if value else None
    try:
        record = decode(AT, key, value, headers or [], MAX)
    except BadRecord as error:
        assert plain is None
        assert error.reason in REASONS
        assert error.detail
        return error
    assert plain is None or headers or same(Record(*plain), record)
    assert str(uuid.UUID(record.id)) == record.id
    for stored in (record.source_id, record.message, record.metadata):
        assert stored is None or "\0" not in stored
        assert stored is None or stored.encode()  # no half surrogates
    assert record.source_id is None or 1 <= len(record.source_id) <= 255
    if value is None:
        assert (record.message, record.metadata) == (None, None)
        return record
    said = json.loads(value.decode(), parse_float=Decimal, parse_int=Decimal, parse_constant=pytest.fail)
    assert record.message is not None
    assert record.message == said["text"]
    assert len(record.message) <= MAX
    assert not record.message.isspace()
    if said.get("id") is not None:
        assert said["id"] in (record.source_id, record.id) or said["id"].lower() == record.id
    assert (record.metadata is None) == (said.get("metadata") is None)
    if record.metadata is not None:
        kept = json.loads(record.metadata, parse_float=Decimal, parse_int=Decimal)
        assert plain_zero(kept) == plain_zero(said["metadata"])
    return record


def same(one: Record, other: Record) -> bool:
    """Whether two records are the same to PostgreSQL, to which it does not matter what is written as an escape."""
    texts = [
        record.metadata and simplejson.dumps(simplejson.loads(record.metadata, use_decimal=True), use_decimal=True)
        for record in (one, other)
    ]
    return texts[0] == texts[1] and one._replace(metadata=None) == other._replace(metadata=None)


def plain_zero(metadata: object) -> str:
    """JSON's -0 is a whole number like 0; everything else is compared to the digit."""
    return repr(metadata).replace("Decimal('-0')", "Decimal('0')")


def damaged(rng: random.Random) -> bytes:
    """A good record with one to four wounds: bytes changed, cut, doubled, poisoned, or spliced with another's."""
    value = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 4)):
        place = rng.randrange(len(value) + 1)
        end = min(len(value), place + rng.randint(0, 8))
        match rng.randrange(6):
            case 0 if value:
                value[place % len(value)] ^= 1 << rng.randrange(8)
            case 1:
                del value[place:end]
            case 2:
                value[place:place] = value[place:end]
            case 3 | 4:
                value[place:end] = rng.choice(POISON)
            case _:
                value[place:] = rng.choice(SEEDS)[rng.randrange(40) :]
    return bytes(value)


@pytest.mark.parametrize("seed", range(4))
def test_damaged_records(seed: int) -> None:
    rng = random.Random(seed)
    outcomes = [checked(damaged(rng)) for _ in range(2500)]
    seen = {"stored" if isinstance(outcome, Record) else outcome.reason for outcome in outcomes}
    # The fuzzer is worth something only while it gets everywhere.
    assert seen >= {"stored", "invalid-json", "invalid-unicode", "nul-character", "missing-text", "text-too-long"}


def test_a_poison_at_every_place() -> None:
    for poison in POISON:
        for place in range(len(SEEDS[1]) + 1):
            checked(SEEDS[1][:place] + poison + SEEDS[1][place:])


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"},
        {"id": "ticket-\u00fc", "metadata": {"n": 2**64 - 1, "of": [{"\u2028": [None, True, -1, "\n"]}]}},
        {"id": None, "metadata": {}},
        {"id": "x" * 255, "metadata": None, "unknown": 1.5},
        {"metadata": json.loads('{"deep":' * 300 + "1" + "}" * 300)},
    ],
)
def test_common_records_are_decoded_quickly(fields: dict[str, object]) -> None:
    value = json.dumps({"text": "a", **fields}).encode()
    row = decode_plain(AT, value, MAX)
    assert row is not None
    assert same(Record(*row), decode(AT, None, value, [], MAX))


ODD: dict[str, list[object]] = {
    "id": ["", "x" * 256, "a\0", 1, True],
    "text": [None, "", " \n", "a\0", 1, "x" * (MAX + 1)],
    "metadata": [0, True, "a", [], {"n": 1.5}, {"n": [2**64]}, {"n": {"m": 1e2}}, {"n": "\0"}],
    "unknown": [json.loads("[" * 801 + "]" * 801)],
}


@pytest.mark.parametrize(("name", "odd"), [(name, odd) for name, every in ODD.items() for odd in every])
def test_odd_records_are_left_to_a_closer_look(name: str, odd: object) -> None:
    value = json.dumps({"id": "a", "text": "a", name: odd}).encode()
    assert decode_plain(AT, value, MAX) is None


NUMBERS = st.from_regex(
    re.compile(r"-?(0|[1-9][0-9]{0,30})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,6})?", re.ASCII), fullmatch=True
)


@unhurried
@given(NUMBERS)
@example("1.10")
@example("-0")
@example("-0.0")
@example("1E+131071")
@example("1e131072")
@example("9" * 131_072)
@example("9" * 131_073)
@example("0." + "0" * 16_382 + "1")
@example("0." + "0" * 16_383 + "1")
@example("1e1000000000000000000")
@example("123456789012345678901234567890.123456789012345678901234567890")
def test_numbers_of_metadata_keep_their_value_or_the_record_is_refused(digits: str) -> None:
    value = f'{{"text": "x", "metadata": {{"n": {digits}}}}}'.encode()
    outcome = checked(value) if len(digits) < sys.get_int_max_str_digits() else decoded(value)
    if isinstance(outcome, BadRecord):
        assert outcome.reason in ("rejected", "invalid-json")
    else:
        assert outcome.metadata is not None
        written = outcome.metadata.removeprefix('{"n":').removesuffix("}")
        assert Decimal(written) == Decimal(digits)
        assert Decimal(written).as_tuple().exponent == Decimal(digits).as_tuple().exponent


def decoded(value: bytes) -> Record | BadRecord:
    try:
        return decode(AT, None, value, [], MAX)
    except BadRecord as error:
        return error


@pytest.mark.parametrize("depth", [10, 798, 799, 900, 1500, 3000, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_depth_is_limited_whoever_decodes(depth: int, opening: str, closing: str) -> None:
    nested = opening * depth + '"[[[[\\"{{{{"' + closing * depth
    for value in (f'{{"text": "x", "metadata": {{"k": {nested}}}}}', f'{{"text": "x", "unknown": [{nested}]}}'):
        for frames in (0, 100):
            outcome = further_down(frames, value.encode())
            if depth <= 798:
                assert isinstance(outcome, Record)
            else:
                assert isinstance(outcome, BadRecord)
                assert outcome.reason == "invalid-json"
                assert "800 levels" in outcome.detail


def further_down(frames: int, value: bytes) -> Record | BadRecord:
    return decoded(value) if frames == 0 else further_down(frames - 1, value)


@pytest.mark.parametrize("value", ["[" * 801 + '"' + '\\"' * 400_000, "[]" * 400_000, '["' * 300_000])
def test_the_depth_of_what_is_no_json_is_found_in_no_time(value: str) -> None:
    with pytest.raises(BadRecord):
        parse(value.encode())


@unhurried
@given(
    st.none() | st.binary(max_size=300),
    st.lists(
        st.tuples(
            st.sampled_from([f"dead-letter-{name}" for name in ("topic", "partition", "offset", "timestamp")])
            | st.text(max_size=5),
            st.none() | st.binary(max_size=12) | st.integers().map(lambda number: str(number).encode()),
        ),
        max_size=8,
    ),
)
def test_any_key_with_any_headers(key: bytes | None, headers: Headers) -> None:
    checked(None, key, headers)
    outcome = checked(b'{"text": "x"}', key, headers)
    assert isinstance(outcome, Record)
    assert outcome.version <= (AT.timestamp, AT.partition, AT.offset)
    assert outcome.replayed is not None or outcome.version == AT.version


def near(number: int) -> st.SearchStrategy[int]:
    return st.integers(number - 2, number + 2) | st.integers()


@unhurried
@given(near(AT.timestamp), near(AT.partition), near(AT.offset))
def test_whatever_replay_headers_claim_a_record_gets_no_later_version(
    timestamp: int, partition: int, offset: int
) -> None:
    claimed = {"topic": AT.topic, "partition": partition, "offset": offset, "timestamp": timestamp}
    headers: Headers = [(f"dead-letter-{name}", str(value).encode()) for name, value in claimed.items()]
    outcome = checked(b'{"text": "x"}', None, headers)
    assert isinstance(outcome, Record)
    assert outcome.version <= (AT.timestamp, AT.partition, AT.offset)
    came_before = (timestamp, partition, offset) < AT.version or (partition == AT.partition and offset < AT.offset)
    assert came_before or outcome.replayed is None
    assert outcome.replayed is not None or outcome.version == AT.version


@unhurried
@given(st.text(alphabet=[chr(c) for c in range(sys.maxunicode + 1) if chr(c).isspace()], max_size=MAX))
def test_white_space_of_any_kind_is_no_text(text: str) -> None:
    outcome = checked(json.dumps({"text": text}).encode())
    assert isinstance(outcome, BadRecord)
    assert outcome.reason == "invalid-text"


@unhurried
@given(st.text(min_size=1, max_size=300))
@example("x" * 255)
@example("x" * 256)
@example("{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}")
@example("urn:uuid:a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11")
@example("\u202eabc\u2069")
@example("  ")
def test_any_id(given_id: str) -> None:
    outcome = checked(json.dumps({"id": given_id, "text": "x"}).encode())
    if isinstance(outcome, BadRecord):
        assert outcome.reason in ("invalid-id", "nul-character", "invalid-unicode")
    else:
        assert outcome.id == str(uuid.uuid5(NAMESPACE, given_id))
        tombstone = checked(None, given_id.encode())
        assert isinstance(tombstone, Record)
        assert outcome[:3] == (*tombstone[:2], "x")
