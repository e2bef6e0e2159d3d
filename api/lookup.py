"""A message by the id in a path, which both APIs take in either form."""

import contextlib

from sqlalchemy import Connection

from api.problems import Problem
from bridge import message
from db import queries


def stored(connection: Connection, given: str) -> queries.Row:
    """A stored message by its UUID or its source id. Raises Problem 404."""
    try:
        message_id, _ = message.message_id(given)
    except message.BadRecord as error:
        raise Problem(404, f"no message can have this id: {error.detail}") from None
    found = queries.message(connection, message_id)
    if found is None:
        raise Problem(404, f"there is no message {given!r}; one that was just sent may not be stored yet")
    return found


def key_of(found: queries.Row) -> str:
    """The key that names this message: its source id, as in its other records, if that maps to the row's id. A typed
    row may have any."""
    with contextlib.suppress(message.BadRecord):
        if message.message_id(found["source_id"])[0] == found["id"]:
            return str(found["source_id"])
    return str(found["id"])
