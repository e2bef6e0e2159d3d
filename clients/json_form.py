"""JSON as the commands read it and print it: numbers of any length, and nothing in it that a terminal would obey.

What goes to the APIs and into Kafka is not made here.
"""

import json
import re
import uuid
from typing import Any

from records import INT_DIGITS, OBEYED

# What JSON may hold unescaped and a terminal, an editor or a reader of lines may obey. Direction marks as well, which
# belong in an Arabic text: as escapes they lose nothing. And halves of surrogate pairs, which UTF-8 cannot hold.
MARKS = re.compile(f"[{OBEYED}\u061c\u200e\u200f\ud800-\udfff]")


class AsWritten:
    """A number that would not be shown as it was written: it is shown only, and not calculated with."""

    def __init__(self, digits: str) -> None:
        self.digits = digits

    def __str__(self) -> str:
        return self.digits


def number(digits: str) -> int | AsWritten:
    return int(digits) if len(digits) <= INT_DIGITS else AsWritten(digits)


def fraction(digits: str) -> float | AsWritten:
    value = float(digits)
    return value if repr(value) == digits else AsWritten(digits)


def parse(text: str) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested too deeply."""
    try:
        return json.loads(text, parse_int=number, parse_float=fraction)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def dump(value: object) -> str:
    """A value as JSON on one line, to be printed."""
    name = uuid.uuid4().hex  # nobody can have put it into a text
    long: list[str] = []

    def stand_in(found: object) -> str:
        if not isinstance(found, AsWritten):
            raise TypeError(f"{type(found).__name__} is no JSON")
        long.append(found.digits)
        return f"{name}:{len(long) - 1}"

    text = json.dumps(value, ensure_ascii=False, default=stand_in)
    if long:
        text = re.sub(f'"{name}:([0-9]+)"', lambda found: long[int(found[1])], text)
    return shown(text)


def shown(text: str) -> str:
    """JSON text with its marks as escapes: it means the same, since they can stand in strings only."""
    return MARKS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
