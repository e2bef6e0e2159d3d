"""JSON of messages and results: what orjson writes and what kombu writes are read alike."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from json import JSONDecodeError
from typing import Any

import pytest
from kombu.utils import json as kombu_json

from tasks.transport import dumps, loads

PLAIN: list[Any] = [
    None,
    [["a", None, 'Gr\u00fc\u00dfe "quoted" \\ \U0001f600\u2028', None, 1_700_000_000_000, 0, 2**63 - 1, None]],
    {"id": {"nested": [True, False, -1, 0.5, ""]}},
    {"__type__": "bytes", "__value__": "as it is"},
    'a text that says "__type__"',
]


@pytest.mark.parametrize("value", PLAIN[:3] + PLAIN[4:])
def test_both_write_and_read_the_same(value: Any) -> None:
    assert json.loads(dumps(value)) == value
    assert loads(dumps(value)) == loads(kombu_json.dumps(value)) == kombu_json.loads(dumps(value)) == value
    assert loads(dumps(value).encode()) == loads(memoryview(dumps(value).encode())) == value


@pytest.mark.parametrize(
    "value",
    ["half \ud800", {1: "a number as a key"}, Decimal("1.10"), datetime(2026, 1, 2, tzinfo=UTC), b"bytes"],
)
def test_what_orjson_does_not_know_is_as_kombu_has_it(value: Any) -> None:
    assert dumps(value) == kombu_json.dumps(value)
    assert loads(dumps(value)) == kombu_json.loads(kombu_json.dumps(value))


def test_a_typed_value_is_read_as_kombu_reads_it() -> None:
    assert loads(dumps([PLAIN[3]])) == [b"as it is"]


@pytest.mark.parametrize("text", ["", "{", "[1,]", "nonsense", '{"a": 1}}'])
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(JSONDecodeError):
        loads(text)
