"""The cursors of the console's lists: the place behind which a page begins, as one word of its address."""

import base64
import binascii
import re
from typing import Any

import simplejson


class InvalidCursor(ValueError):
    """The cursor is none that a page of this list has given."""


def can_be_asked(given: str) -> bool:
    """Whether a query can carry this text: psycopg2 raises ValueError for NUL, and for half of a surrogate pair."""
    return not re.search("[\x00\ud800-\udfff]", given)


def write(*place: object) -> str:
    return base64.urlsafe_b64encode(simplejson.dumps(place).encode()).decode()


def read(cursor: str, *kinds: type) -> list[Any]:
    """Raises InvalidCursor for one that `write` has not made of values of these types."""
    try:
        place = simplejson.loads(base64.b64decode(cursor.encode(), b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        place = None
    if (
        not isinstance(place, list)
        or [type(each) for each in place] != list(kinds)
        or not all(can_be_asked(each) for each in place if isinstance(each, str))
    ):
        raise InvalidCursor(f"{cursor[:100]!r} is no place in this list")
    return place
