"""Records of every odd kind through a real Kafka, bridge and worker: each is stored to the letter or buried with its
reason and its bytes, and its neighbours are stored."""

import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.record.default_records import DefaultRecordBatchBuilder
from sqlalchemy import Engine

from bridge.message import message_id
from records import KEPT_BYTES
from settings import Settings
from stack import local_part
from tests.parts import Running, eventually
from tests.samples import ask

Start = Callable[..., Running]

MAX = 100_000
MEGABYTE = 1_000_000
NULL = b"\0 no value"
UUID = "b0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"
ODD_TEXTS: list[object] = [1, 1.5, True, [], {}, ""]
WHITE = "".join(chr(point) for point in range(sys.maxunicode + 1) if chr(point).isspace())


class Odd(NamedTuple):
    """A record, and what is to come of it: a reason in BURIED, the text (and the metadata) in STORED."""

    name: str
    value: bytes | None
    expected: str
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp: int | None = None
    metadata: str | None = None


def record(text: object = "good", **fields: object) -> bytes:
    return json.dumps({"text": text, **fields}, ensure_ascii=False).encode()


def with_metadata(name: str, metadata: str, expected: str = "good") -> Odd:
    value = f'{{"id": "{name}", "text": "good", "metadata": {metadata}}}'.encode()
    return Odd(name, value, expected, metadata=metadata if expected == "good" else None)


def text_of(name: str, message: str) -> Odd:
    assert len(message) <= MAX
    return Odd(name, record(message, id=name), message)


def words(count: int, first: int) -> str:
    """Different words of two characters with four bytes each."""
    return " ".join(chr(first + place % 20_000) + chr(first + place // 20_000) for place in range(count))


BURIED = [
    *(Odd("empty", b"", "invalid-json"), Odd("spaces", b"  \r\n", "invalid-json"), Odd("NUL", b"\0", "invalid-json")),
    Odd("byte-order mark", b"\xef\xbb\xbf" + record(), "invalid-json"),
    Odd("UTF-16", record().decode().encode("utf-16"), "invalid-unicode"),
    Odd("UTF-32, little end first", record().decode().encode("utf-32-le"), "invalid-json"),
    Odd("deep", b"[" * 100_000, "invalid-json"),
    Odd("deep and closed", b"[" * 100_000 + b"]" * 100_000, "invalid-json"),
    Odd("deep objects", b'{"text":' * 100_000, "invalid-json"),
    Odd("deep metadata", b'{"text": "x", "metadata": {"k": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}", "invalid-json"),
    Odd("not a number", b'{"text": "x", "metadata": {"n": NaN}}', "invalid-json"),
    Odd("infinite", b'{"text": "x", "n": -Infinity}', "invalid-json"),
    Odd("raw control", b'{"text": "a\x01b"}', "invalid-json"),
    Odd("two documents", b'{"text": "x"}{"text": "y"}', "invalid-json"),
    Odd("10 MB of nothing", b"x" * (10 * MEGABYTE), "invalid-json"),
    Odd("raw NUL in the text", b'{"text": "a\0b"}', "invalid-json"),
    Odd("escaped NUL in the text", rb'{"text": "a\u0000b"}', "nul-character"),
    Odd("escaped NUL in the id", rb'{"id": "\u0000", "text": "x"}', "nul-character"),
    Odd("escaped NUL in metadata", rb'{"text": "x", "metadata": {"a": [{"\u0000": 1}]}}', "nul-character"),
    Odd("half a surrogate", rb'{"text": "\ud83d"}', "invalid-unicode"),
    Odd("half a surrogate in metadata", rb'{"text": "x", "metadata": {"k": "\udc00"}}', "invalid-unicode"),
    Odd("surrogate in UTF-8", b'{"text": "\xed\xa0\xbd\xed\xb8\x80"}', "invalid-unicode"),
    Odd("Latin-1", b'{"text": "gr\xfc\xdf"}', "invalid-unicode"),
    *(
        Odd(f"a {name}", value, "not-an-object")
        for name, value in [("list", b"[]"), ("text", b'"x"'), ("null", b"null")]
    ),
    Odd("huge number as a record", b"9" * 100_000, "not-an-object"),
    Odd("id of 256", record(id="x" * 256), "invalid-id"),
    Odd("id a number", record(id=1), "invalid-id"),
    Odd("empty id", record(id=""), "invalid-id"),
    *(
        Odd("no text", b'{"id": "x"}', "missing-text"),
        Odd("last text null", b'{"text":"x","text":null}', "missing-text"),
    ),
    *(Odd(f"text {kind!r}", record(kind), "invalid-text") for kind in ODD_TEXTS),
    Odd("white space of every kind", record(WHITE), "invalid-text"),
    Odd("one over", record("x" * (MAX + 1)), "text-too-long"),
    Odd("one over in four bytes", record("\U0001f600" * (MAX + 1)), "text-too-long"),
    Odd("metadata a list", record(metadata=[]), "invalid-metadata"),
    Odd("metadata false", record(metadata=False), "invalid-metadata"),
    with_metadata("too large a number", '{"n": 1e131072}', "rejected"),
    with_metadata("too small a number", '{"n": 1e-16384}', "rejected"),
    Odd("beyond any number", b'{"text": "x", "metadata": {"n": 1e9999999999999999999}}', "invalid-json"),
    Odd("tombstone without a key", None, "invalid-id", key=b""),
    Odd("tombstone, key of 256", None, "invalid-id", key=b"k" * 256),
    Odd("tombstone, key not UTF-8", None, "invalid-unicode", key=b"\xff\xfe"),
    Odd("tombstone, key NUL", None, "nul-character", key=b"a\0b"),
    Odd(
        "odd headers", b"{}", "missing-text", b"\0\xff", (("", b""), ("\0", b"\0"), ("h" * 9_000, b"\xff"), ("n", None))
    ),
    Odd("thousands of headers", b"{}", "missing-text", headers=tuple((f"h{n}", b"x") for n in range(5_000))),
    Odd("a header of 1 MB", b"{}", "missing-text", b"key", (("big", b"\xfe" * MEGABYTE),)),
    Odd("from the far future", b"{}", "missing-text", timestamp=2**62),
]

STORED = [
    text_of("control characters", "a\x01\x1b[2J\x7f\x85\r\n\tb"),
    text_of("bidi and zero width", "\u202eabc\u2066\u200b\u200d\ufeff"),
    text_of("not a character", "\uffff\ufdd0\U0010ffff"),
    text_of("as long as may be", "x" * MAX),
    text_of("as long as may be, four bytes", "\U0001f600" * MAX),
    text_of("different words", words(MAX // 3, 0x20000)),
    text_of("a chain of words", "-".join(chr(0x20000 + place % 40_000) for place in range(MAX // 2))),
    text_of("addresses", " ".join(f"host{place}.example.com/path/{place}" for place in range(2_900))[:MAX]),
    text_of("an endless word", "\u00e4" * 70_000),
    text_of("an endless address", "http://example.com/" + "a/" * 40_000),
    text_of("the same word", "cat " * 25_000),
    text_of("only a mark", "\u200b"),
    Odd("keys twice", b'{"id": "keys twice", "text": "first", "text": "last"}', "last"),
    Odd("unknown keys", record(id="unknown keys", more=[1, {"deep": "x" * MEGABYTE}]), "good"),
    Odd("10 MB beside the text", record(id="10 MB beside the text", more="x" * (10 * MEGABYTE)), "good"),
    Odd("odd key", record(id="odd key"), "good", key=b"\xff\0" * 100),
    Odd("large key", record(id="large key"), "good", key=b"k" * MEGABYTE),
    Odd("good, odd headers", record(id="good, odd headers"), "good", None, (("", b""), ("n", None), ("\0", b"\xff"))),
    Odd("good, a large header", record(id="good, a large header"), "good", None, (("big", b"x" * MEGABYTE),)),
    Odd(
        "good, many headers", record(id="good, many headers"), "good", None, tuple((f"h{n}", b"") for n in range(5_000))
    ),
    Odd("at the epoch", record(id="at the epoch"), "good", timestamp=0),
    Odd("in the far future", record(id="in the far future"), "good", timestamp=2**62),
    Odd("without a time", record(id="without a time"), "good", timestamp=-1),
    Odd("before all time", record(id="before all time"), "good", timestamp=-(10**17)),
    *(
        Odd(given, record(id=given), "good")
        for given in ("x" * 255, "\U0001f600" * 255, "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", " ", "\u2067\u202e", "\n")
    ),
    *(Odd(given, record(id=given), "good") for given in (f"{{{UUID}}}", f"urn:uuid:{UUID}", f" {UUID}", f"{UUID}\n")),
    with_metadata(
        "numbers", '{"a": 1.10, "b": 1.1, "c": -0, "d": 1e400, "e": 1E-400, "f": 12345678901234567890.123456789}'
    ),
    with_metadata("a long number", '{"n": ' + "7" * 5_000 + "}"),
    with_metadata("the longest number", '{"n": ' + "9" * 131_072 + "}"),
    with_metadata("the smallest number", '{"n": 1e-16383}'),
    with_metadata("nested", '{"k": ' + "[" * 500 + "]" * 500 + "}"),
    with_metadata("keys of metadata", '{"": {"\u202e": null, "\U0001f600": "\\\\u0000", "__proto__": []}}'),
    with_metadata("large metadata", '{"k": "' + "x" * (5 * MEGABYTE) + '"}'),
    with_metadata("wide metadata", "{" + ",".join(f'"k{place}": {place}' for place in range(50_000)) + "}"),
]


@pytest.fixture
def wide_topic(settings: Settings, topic: str) -> str:
    """The test's topic with the time stamps of the producers and records of up to 12 MB."""
    admin = KafkaAdminClient(**settings.kafka_client())
    changes = {
        "message.timestamp.type": "CreateTime",
        "message.timestamp.after.max.ms": str(2**63 - 1),
        "message.timestamp.before.max.ms": str(2**63 - 1),
        "max.message.bytes": str(12 * MEGABYTE),
    }
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, changes)])
    admin.close()
    return topic


@pytest.fixture
def producer(settings: Settings, wide_topic: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[KafkaProducer]:
    """A producer of anything; kafka-python's own would refuse a header without a value."""
    append = DefaultRecordBatchBuilder.append

    def with_nulls(self: Any, offset: int, timestamp: int, key: Any, value: Any, headers: Any, *more: Any) -> Any:
        headers = [(name, None if content == NULL else content) for name, content in headers]
        return append(self, offset, timestamp, key, value, headers, *more)

    monkeypatch.setattr(DefaultRecordBatchBuilder, "append", with_nulls)
    client = KafkaProducer(**settings.kafka_client(), acks="all", max_request_size=12 * MEGABYTE)
    yield client
    client.close(timeout=5)


@pytest.mark.timeout(240)
def test_each_record_is_stored_to_the_letter_or_buried_with_its_reason(
    settings: Settings, database: Engine, wide_topic: str, producer: KafkaProducer, start: Start
) -> None:
    start("persist-worker")
    bridge = start("bridge")
    sent = []
    for number, odd in enumerate([*BURIED, *STORED]):
        neighbour = {"id": f"neighbour {number}", "text": "good"}
        producer.send(wide_topic, json.dumps(neighbour).encode(), partition=0)
        sent.append(send(producer, wide_topic, odd))
    producer.flush(60)
    offsets = [future.get(1).offset for future in sent]
    total = len(BURIED) + len(STORED) + len(offsets)
    count = "SELECT (SELECT count(*) FROM text_messages) + (SELECT count(*) FROM dead_letters) AS count"
    eventually(lambda: ask(database, count)[0]["count"] == total, timeout=120, interval=0.3)
    assert bridge.alive

    letters = ask(database, 'SELECT * FROM dead_letters ORDER BY "offset"')
    assert [(odd.name, letter["offset"], letter["reason"]) for odd, letter in zip(BURIED, letters, strict=True)] == [
        (odd.name, offset, odd.expected) for odd, offset in zip(BURIED, offsets[: len(BURIED)], strict=True)
    ]
    for odd, letter in zip(BURIED, letters, strict=True):
        assert as_bytes(letter["key"]) == odd.key, odd.name
        assert as_bytes(letter["value"]) == (odd.value and odd.value[:KEPT_BYTES]), odd.name
        assert letter["value_bytes"] == (None if odd.value is None else len(odd.value)), odd.name
    for odd, buried in zip(BURIED, read(settings.dead_letter_topic, len(BURIED), settings), strict=True):
        headers = dict(buried.headers)
        assert headers["dead-letter-reason"] == odd.expected.encode(), odd.name
        if "dead-letter-cut" not in headers:
            assert (buried.key, buried.value) == (odd.key, odd.value), odd.name
            assert all(headers[name] == (content or b"") for name, content in odd.headers), odd.name
        else:
            assert len(odd.value or b"") + sum(len(content or b"") for _, content in odd.headers) >= MEGABYTE

    rows = {
        row["id"]: row
        for row in ask(database, "SELECT id::text, source_id, message, metadata::text FROM text_messages")
    }
    for odd in STORED:
        given = json.loads(odd.value or b"", parse_int=Decimal)["id"]
        identity, source_id = message_id(given)
        row = rows.pop(identity)
        assert (row["source_id"], row["message"]) == (source_id, odd.expected), odd.name
        if odd.metadata is not None:
            assert values(row["metadata"]) == values(odd.metadata), odd.name
    assert {row["source_id"] for row in rows.values()} == {f"neighbour {number}" for number in range(len(offsets))}


def send(producer: KafkaProducer, topic: str, odd: Odd) -> Any:
    headers = [(name, NULL if content is None else content) for name, content in odd.headers]
    return producer.send(topic, odd.value, odd.key, headers, partition=0, timestamp_ms=odd.timestamp)


def as_bytes(found: memoryview | None) -> bytes | None:
    return None if found is None else bytes(found)


def values(document: str) -> object:
    """JSON with its numbers as they stand: a value that was rounded, or lost its last zero, differs."""

    def digits(number: str) -> tuple[object, ...]:
        plain = Decimal(number)
        return (plain, min(0, int(plain.as_tuple().exponent)))

    return json.loads(document, parse_float=digits, parse_int=digits)


def read(topic: str, count: int, settings: Settings) -> list[Any]:
    consumer = KafkaConsumer(**settings.kafka_client(), auto_offset_reset="earliest", consumer_timeout_ms=10_000)
    consumer.subscribe([topic])
    found = [record for _, record in zip(range(count), consumer, strict=False)]
    consumer.close()
    return found


def test_a_codec_that_is_not_installed_ends_the_bridge_with_a_plain_error(
    settings: Settings, database: Engine, topic: str, broker: object, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import kafka.codec\nkafka.codec.has_zstd = lambda: False\n")
    with closing(KafkaProducer(**settings.kafka_client(), acks="all", compression_type="zstd")) as producer:
        producer.send(topic, record("x" * 1000)).get(10)
    part = local_part(settings, "bridge")
    bridge = Running(replace(part, environment={**part.environment, "PYTHONPATH": str(tmp_path)}), tmp_path / "log")
    try:
        eventually(lambda: not bridge.alive, timeout=40)
        last = bridge.log_tail(1)
    finally:
        bridge.kill()
    assert bridge.process.returncode == 1
    assert re.search(r"ERROR bridge: Kafka at .*(zstd|[Cc]odec|compress)", last), last
