"""Decoding and checking a record: bytes in, a Record or a BadRecord with its reason out. Knows neither Kafka nor
Celery.

Any bytes may come. What is accepted is stored to the letter; what is refused has exactly one of the reasons in
records.REASONS.
"""

import hashlib
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, NamedTuple, NoReturn, Protocol

import orjson
import simplejson

from letter_headers import Coordinates, Headers, named
from records import Record, whole_number

# Ids that are no UUIDs are mapped into this namespace. It must never change: ids of stored messages come from it.
NAMESPACE = uuid.UUID("5f0c6f0e-4f0b-5c0e-9d55-2f6f6f1c7a31")

MAX_ID_CHARS = 255

CANONICAL_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")

# How deeply JSON may be nested: less than Python's decoder can take, which depends on the depth of its caller's stack.
DEEP = 800
# An unclosed string matches up to the end of the document, so that it is read only once.
BRACKETS = re.compile(r'[\[\]{}]|"(?:[^"\\]+|\\.)*"?', re.DOTALL)

# Of PostgreSQL's numeric, before and after the decimal point: https://www.postgresql.org/docs/18/datatype-numeric.html
NUMERIC_DIGITS_BEFORE = 131_072
NUMERIC_DIGITS_AFTER = 16_383
# PostgreSQL prints 1e131071 as so many digits, wherever the metadata is read: an array of these would be a gigabyte.
PRINTED_DIGITS = 1_000_000


class BadRecord(ValueError):
    """The record can never be stored; `reason` is one of records.REASONS, `detail` says what is wrong with it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Fields(NamedTuple):
    """The checked content of a record. `id` is None if none was given; `metadata` is JSON text."""

    id: str | None
    source_id: str | None
    text: str
    metadata: str | None


# A Record before it is one: its fields, in their order.
Row = tuple[str, str | None, str | None, str | None, int, int, int, tuple[str, int, int] | None]


class Place(Protocol):
    """What `decode_plain` has to know of a place in the log."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...


def decode(at: Coordinates, key: bytes | None, value: bytes | None, headers: Headers, max_text_chars: int) -> Record:
    """The record as persist_text takes it. Raises BadRecord and nothing else, whatever the bytes.

    The replay of a dead letter, told by its headers, is decoded as if it stood where it first came.
    """
    first = first_coming(at, headers)
    replayed = None if first is at else (first.topic, first.partition, first.offset)
    place = (*min(first.version, at.version), replayed)
    if value is None:
        identity, source_id = message_id(key_text(key))
        return Record(identity, source_id, None, None, *place)
    fields = check(parse(value), max_text_chars)
    identity = fields.id or id_of_place(first)
    return Record(identity, fields.source_id, fields.text, fields.metadata, *place)


def decode_plain(at: Place, value: bytes, max_text_chars: int) -> Row | None:
    """As `decode`, in a fraction of the time, for the most common records: no second tries (by their headers), and
    without numbers in the metadata that orjson would round. None for any other record, and for one that may be bad,
    which `decode` then judges."""
    try:
        document = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    if type(document) is not dict or value.count(b"[") + value.count(b"{") > DEEP:
        return None
    text = document.get("text")
    if type(text) is not str or not text or len(text) > max_text_chars or "\0" in text or text.isspace():
        return None
    identity, source_id = document.get("id"), None
    if identity is None:
        identity = id_of_place(at)
    elif type(identity) is not str or not 1 <= len(identity) <= MAX_ID_CHARS or "\0" in identity:
        return None
    elif CANONICAL_UUID.fullmatch(identity):
        identity = identity.lower()
    else:
        identity, source_id = name_based_id(identity), identity
    metadata = document.get("metadata")
    if metadata is not None:
        if type(metadata) is not dict or has_float(metadata):
            return None
        metadata = written(metadata)
        if "\\u0000" in metadata:
            return None
    return (identity, source_id, text, metadata, at.timestamp, at.partition, at.offset, None)


def has_float(value: object) -> bool:
    """Whether orjson has read a number that is not whole, or has more than 64 bits, from this JSON value."""
    left = [value]
    for each in left:
        if type(each) is float:
            return True
        if type(each) is dict:
            left += each.values()
        elif type(each) is list:
            left += each
    return False


def id_of_place(at: Place) -> str:
    """The id of a record that has none."""
    return name_based_id(f"{at.topic}/{at.partition}/{at.offset}/{at.timestamp}")


def name_based_id(name: str) -> str:
    """The UUIDv5 (RFC 9562, 5.5) of a name in NAMESPACE, as uuid.uuid5 makes it in two and a half times the time.
    Raises UnicodeEncodeError."""
    digest = bytearray(hashlib.sha1(NAMESPACE.bytes + name.encode(), usedforsecurity=False).digest())
    digest[6] = digest[6] & 0x0F | 0x50  # the version
    digest[8] = digest[8] & 0x3F | 0x80  # the variant
    digits = digest.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:32]}"


def first_coming(at: Coordinates, headers: Headers) -> Coordinates:
    """The coordinates of the dead letter that this record repeats, or its own.

    A made-up header cannot win over a newer text: it can only make a version older (`decode`). And a first coming lies
    before its repetition: by the clock, or in the log if the clock was set back meanwhile.
    """
    first = named(headers) if headers else None
    if first is None:
        return at
    plausible = 0 <= first.partition < 2**31 and 0 <= first.offset < 2**63 and -(2**63) <= first.timestamp < 2**63
    before = first.partition == at.partition and first.offset < at.offset
    return first if plausible and (before or first.version < at.version) and first.topic == at.topic else at


def parse(value: bytes, levels: int = DEEP) -> object:
    """The JSON value of UTF-8 bytes, nested at most `levels` deep, with numbers kept exactly. Raises BadRecord."""
    if not value:
        raise BadRecord("invalid-json", "the value is empty")
    try:
        document = value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord("invalid-unicode", f"not UTF-8 at byte {error.start}: {error.reason}") from None
    if document[0] == "\ufeff":
        raise BadRecord("invalid-json", "it begins with a byte-order mark; JSON is sent without one")
    if document.count("[") + document.count("{") > levels and depth(document) > levels:
        raise BadRecord("invalid-json", f"nested too deeply: {levels} levels are the limit")
    try:
        return DECODER.decode(document)
    except BadRecord:
        raise
    except ValueError as error:
        raise BadRecord("invalid-json", str(error)) from None


def depth(document: str) -> int:
    """How many brackets are open at once, at most."""
    deepest = level = 0
    for found in BRACKETS.findall(document):
        if found in ("[", "{"):
            level += 1
            deepest = max(deepest, level)
        elif found in ("]", "}"):
            level -= 1
    return deepest


def number(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        raise BadRecord("invalid-json", "a number is out of range") from None


def refuse_constant(name: str) -> NoReturn:
    raise BadRecord("invalid-json", f"{name} is not JSON")


# Made once: json.loads would make one for each record.
DECODER = json.JSONDecoder(parse_float=number, parse_int=whole_number, parse_constant=refuse_constant)


def check(document: object, max_text_chars: int) -> Fields:
    """The content of a parsed record; unknown keys are ignored. Raises BadRecord."""
    if not isinstance(document, dict):
        raise BadRecord("not-an-object", f'expected {{"id": ..., "text": ...}}, found {json_type(document)}')
    identity = source_id = None
    if document.get("id") is not None:
        identity, source_id = message_id(document["id"])
    text = check_text(document.get("text"), max_text_chars)
    return Fields(identity, source_id, text, check_metadata(document.get("metadata")))


def message_id(given: object) -> tuple[str, str | None]:
    """The UUID of a message, in lower case, and its source id (None if a canonical UUID was given).

    Any other string of 1 to 255 characters becomes a `name_based_id`. Raises BadRecord.
    """
    if not isinstance(given, str):
        raise BadRecord("invalid-id", f"the id must be a string, found {json_type(given)}")
    if not 1 <= len(given) <= MAX_ID_CHARS:
        raise BadRecord("invalid-id", f"the id must have 1 to {MAX_ID_CHARS} characters, found {len(given)}")
    check_characters(given, "the id")
    if CANONICAL_UUID.fullmatch(given):
        return given.lower(), None
    return name_based_id(given), given


def key_text(key: bytes | None) -> str:
    if key is None:
        raise BadRecord("invalid-id", "a record without a value deletes the message of its key, but it has no key")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRecord("invalid-unicode", f"the key is not UTF-8 at byte {error.start}") from None


def check_text(text: object, max_text_chars: int) -> str:
    if text is None:
        raise BadRecord("missing-text", "there is no text")
    if not isinstance(text, str):
        raise BadRecord("invalid-text", f"the text must be a string, found {json_type(text)}")
    check_characters(text, "the text")
    if len(text) > max_text_chars:
        raise BadRecord("text-too-long", f"the text has {len(text)} characters, the limit is {max_text_chars}")
    if not text.strip():
        raise BadRecord("invalid-text", "the text is empty or only white space")
    return text


def check_metadata(metadata: object) -> str | None:
    if metadata is None:
        return None
    if not isinstance(metadata, Mapping):
        raise BadRecord("invalid-metadata", f"the metadata must be an object, found {json_type(metadata)}")
    dumped = written(metadata)
    if "E" in dumped or len(dumped) > NUMERIC_DIGITS_AFTER:
        check_numbers(metadata)
    if "\\u0000" in dumped and ESCAPED_NUL.search(dumped):
        raise BadRecord("nul-character", "the metadata contains a NUL character")
    check_characters(dumped, "the metadata")
    return dumped


def written(metadata: Mapping[str, object]) -> str:
    """Its JSON text, with every digit of its numbers."""
    try:
        return orjson.dumps(metadata, default=digits_of).decode()
    except TypeError:  # a whole number of more than 64 bits, half of a surrogate pair, or more than 254 levels
        return simplejson.dumps(metadata, use_decimal=True, ensure_ascii=False, separators=(",", ":"))


def digits_of(number: object) -> orjson.Fragment:
    if not isinstance(number, Decimal):
        raise TypeError
    return orjson.Fragment(str(number))


def check_numbers(metadata: Mapping[str, object]) -> None:
    """Raises BadRecord for numbers that PostgreSQL cannot hold, or that become far too long when it prints them."""
    printed = 0
    for number in decimals(metadata):
        if not is_numeric(number):
            raise BadRecord("rejected", "the metadata has a number beyond what PostgreSQL's numeric can hold")
        printed += zeros(number)
    if printed > PRINTED_DIGITS:
        raise BadRecord(
            "rejected",
            f"the metadata's numbers would be longer by {printed} digits without exponents, "
            f"the limit is {PRINTED_DIGITS}",
        )


def zeros(number: Decimal) -> int:
    """How many digits longer a number gets when it is written without its exponent."""
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return exponent if exponent > 0 else max(0, -exponent - len(digits))


def decimals(value: object) -> Iterator[Decimal]:
    """The numbers in a JSON value that have a fraction or an exponent, or are very long integers."""
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, Decimal):
            yield each
        elif isinstance(each, Mapping):
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)


def is_numeric(number: Decimal) -> bool:
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    return len(digits) + exponent <= NUMERIC_DIGITS_BEFORE and -exponent <= NUMERIC_DIGITS_AFTER


def check_characters(text: str, what: str) -> None:
    if "\0" in text:
        raise BadRecord("nul-character", f"{what} contains a NUL character at {text.index(chr(0))}")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadRecord("invalid-unicode", f"{what} contains half of a surrogate pair at {error.start}") from None


def json_type(value: Any) -> str:
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
