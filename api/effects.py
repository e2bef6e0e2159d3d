"""Waiting until a record that was appended to the log has taken effect in the database.

The database is asked again and again, for at most POST_WAIT_SECONDS. What Kafka has is safe whatever comes of the wait.
"""

import time
from collections.abc import Callable

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from api.kafka_log import Appended
from api.parts import Parts
from db import queries, session

# Storing takes about 10 ms, so the database is asked often at first and then less and less.
FIRST_PAUSE, LAST_PAUSE = 0.002, 0.05
USUAL_SECONDS = 0.1  # a wait beyond this has a reason, which may be a deletion
LONG_WAIT_SECONDS = 2.0

# Given a connection and the seconds waited: whether it took effect, or None where that is still open.
Look = Callable[[Connection, float], bool | None]


def wait_until_stored(parts: Parts, message_id: str, appended: Appended) -> bool:
    """Whether the record, or a later version of its message, is stored. A later deletion ends the wait."""

    def look(connection: Connection, waited: float) -> bool | None:
        version = queries.version(connection, message_id)
        if version is not None and version >= appended:
            return True
        deletion = queries.deletion(connection, message_id) if waited > USUAL_SECONDS else None
        return False if deletion is not None and deletion >= appended else None

    return wait(parts, look)


def wait_until_deleted(parts: Parts, message_id: str, appended: Appended) -> bool:
    """Whether the message is gone. A later version of it ends the wait."""

    def look(connection: Connection, waited: float) -> bool | None:
        version = queries.version(connection, message_id)
        if version is None:
            return True
        return False if version > appended else None

    return wait(parts, look)


def wait(parts: Parts, look: Look) -> bool:
    """What `look` says once it is not None; False when the time is over.

    A wait that has become long also ends when too many others are long as well: nothing is being stored then, and the
    threads are needed for other calls. A database that is away says nothing about the record, and is asked again.
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
            except SQLAlchemyError as error:
                if not session.is_outage(error):
                    raise
                continue
            if found is not None:
                return found
        return False
    finally:
        if slot:
            parts.long_waits.release()
