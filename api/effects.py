"""Waiting until a record that was appended to the log has taken effect in the database.

The database is asked again and again, for at most POST_WAIT_SECONDS. What Kafka has is safe, however the wait ends.
"""

import time
from collections.abc import Callable

import psycopg2
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.kafka_log import Appended
from api.parts import Parts
from db import dead_letter_queries, queries, session

# Storing takes about 10 ms, so the database is asked often at first and then less and less.
FIRST_PAUSE, LAST_PAUSE = 0.002, 0.05
USUAL_SECONDS = 0.1  # a wait beyond this has a reason, which may be a deletion
LONG_WAIT_SECONDS = 2.0

# What a database that is away raises; psycopg2's own if a connection breaks on its way back to the pool.
DATABASE_ERRORS = (SQLAlchemyError, psycopg2.Error)

# Given a connection and the seconds waited: what became of the record ({} if there is nothing to show of it), or None
# while that is not known.
Look = Callable[[Connection, float], queries.Row | None]
NOTHING: queries.Row = {}


class Rejected(Exception):
    """The record became a dead letter, for the reason and with the detail that are given."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def wait_until_stored(parts: Parts, message_id: str, appended: Appended) -> queries.Row | None:
    """The message, once the record or a later version is stored; None if that takes longer, or if it was deleted again.
    Raises Rejected."""
    topic = parts.settings.kafka_topic

    def look(connection: Connection, waited: float) -> queries.Row | None:
        version = queries.version(connection, message_id)
        if version is not None and version >= appended:
            return queries.message(connection, message_id) or NOTHING
        if waited <= USUAL_SECONDS:
            return None
        deletion = queries.deletion(connection, message_id)
        if deletion is not None and deletion >= appended:
            return NOTHING
        letter = dead_letter_queries.reason_of(connection, topic, *appended)
        if letter is not None:
            raise Rejected(*letter)
        return None

    return wait(parts, look) or None


def wait_until_deleted(parts: Parts, message_id: str, appended: Appended) -> None:
    """Returns when the message is gone, when a later version of it has come, or when the time is over."""

    def look(connection: Connection, waited: float) -> queries.Row | None:
        version = queries.version(connection, message_id)
        return NOTHING if version is None or version > appended else None

    wait(parts, look)


def wait(parts: Parts, look: Look) -> queries.Row | None:
    """What `look` says once it is not None; None when the time is over.

    A long wait also ends if too many others are long as well: nothing is being stored then, and the threads are needed
    for other calls. A database that is away says nothing about the record, and is asked again.
    """
    began = time.monotonic()
    pause = FIRST_PAUSE
    slot = False
    try:
        while (waited := time.monotonic() - began) + pause < parts.settings.post_wait_seconds:
            if waited > LONG_WAIT_SECONDS and not slot:
                slot = parts.long_waits.acquire(blocking=False)
                if not slot:
                    break
            time.sleep(pause)
            pause = min(pause * 1.5, LAST_PAUSE)
            try:
                with parts.reader.connect() as connection:
                    found = look(connection, waited)
            except DATABASE_ERRORS as error:
                if not session.is_outage(error):
                    raise
                continue
            if found is not None:
                return found
        return None
    finally:
        if slot:
            parts.long_waits.release()
