"""Bad records of many kinds, each with the reason that it must be given. Written from the contract, not the decoder.

A bad record is known in the log by its key, `bad/KIND/NUMBER`, so that the expected reason needs no second decoder.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass

PREFIX = b"bad/"
EMPTY_KEY = "tombstone-empty-key"  # the one kind that cannot carry its name


@dataclass(frozen=True)
class Kind:
    """`value` makes the bytes of the nth record (None: a tombstone); `key_suffix` follows the name in its key."""

    reason: str
    value: Callable[[int], bytes | None]
    key_suffix: bytes = b""


def field(**fields: object) -> Callable[[int], bytes]:
    return lambda number: json.dumps({"id": f"never-{number}", "text": "good", **fields}).encode()


def raw(value: bytes) -> Callable[[int], bytes]:
    return lambda number: value


def tombstone(number: int) -> None:
    return None


KINDS: dict[str, Kind] = {
    "empty": Kind("invalid-json", raw(b"")),
    "white-space": Kind("invalid-json", raw(b" \n")),
    "cut-off": Kind("invalid-json", lambda n: b'{"id": "never-%d", "text": "cut o' % n),
    "plain-text": Kind("invalid-json", lambda n: b"hello number %d" % n),
    "single-quotes": Kind("invalid-json", raw(b"{'id': 'never', 'text': 'good'}")),
    "trailing": Kind("invalid-json", raw(b'{"text": "good"} {"text": "good"}')),
    "not-a-number": Kind("invalid-json", raw(b'{"text": "good", "n": NaN}')),
    "byte-order-mark": Kind("invalid-json", raw(b'\xef\xbb\xbf{"text": "good"}')),
    "deep": Kind("invalid-json", lambda n: b'{"a":' * (100_000 + n)),
    "binary": Kind("invalid-unicode", lambda n: bytes([255, 254, n % 256]) + bytes(range(128, 256))),
    "latin-1": Kind("invalid-unicode", raw(b'{"text": "caf\xe9"}')),
    "utf-16": Kind("invalid-unicode", lambda n: f'{{"text": "good {n}"}}'.encode("utf-16")),
    "lone-surrogate": Kind("invalid-unicode", raw(b'{"text": "half \\ud83d of a pair"}')),
    "surrogate-in-id": Kind("invalid-unicode", raw(b'{"id": "\\udc00", "text": "good"}')),
    "nul-in-text": Kind("nul-character", field(text="be\0fore")),
    "nul-in-id": Kind("nul-character", field(id="a\0b")),
    "nul-in-metadata": Kind("nul-character", field(metadata={"a": ["\0"]})),
    "array": Kind("not-an-object", raw(b'[{"text": "good"}]')),
    "string": Kind("not-an-object", raw(b'"good"')),
    "null": Kind("not-an-object", raw(b"null")),
    "number": Kind("not-an-object", lambda n: b"%d" % n),
    "id-number": Kind("invalid-id", field(id=5)),
    "id-empty": Kind("invalid-id", field(id="")),
    "id-object": Kind("invalid-id", field(id={"id": "x"})),
    "id-long": Kind("invalid-id", field(id="x" * 256)),
    "text-missing": Kind("missing-text", lambda n: b'{"id": "never-%d", "message": "good"}' % n),
    "text-null": Kind("missing-text", field(text=None)),
    "text-number": Kind("invalid-text", field(text=12.5)),
    "text-blank": Kind("invalid-text", field(text=" \t\n\u3000")),
    "text-list": Kind("invalid-text", field(text=["good"])),
    "text-long": Kind("text-too-long", lambda n: json.dumps({"text": "x" * (100_001 + n)}).encode()),
    "metadata-list": Kind("invalid-metadata", field(metadata=[])),
    "metadata-string": Kind("invalid-metadata", field(metadata="{}")),
    "metadata-huge-number": Kind("rejected", raw(b'{"text": "good", "metadata": {"n": 1e200000}}')),
    "large": Kind("invalid-json", lambda n: b"[%d," % n * 60_000),
    "tombstone-not-utf-8": Kind("invalid-unicode", tombstone, b"\xff"),
    "tombstone-nul": Kind("nul-character", tombstone, b"\0"),
    "tombstone-long-key": Kind("invalid-id", tombstone, b"x" * 256),
    EMPTY_KEY: Kind("invalid-id", tombstone),
}


def key_of(name: str, number: int) -> bytes:
    return b"" if name == EMPTY_KEY else PREFIX + f"{name}/{number}".encode() + KINDS[name].key_suffix


def reason_of(key: bytes | None, value: bytes | None) -> str | None:
    """The reason that a record of the log must be given; None for a good one."""
    if key == b"" and value is None:
        return KINDS[EMPTY_KEY].reason
    if key is None or not key.startswith(PREFIX):
        return None
    return KINDS[key.split(b"/")[1].decode()].reason
