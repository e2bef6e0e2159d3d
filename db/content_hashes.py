"""Content hashes, by which it is known whether a text is still the one that somebody has seen. They protect nothing."""

import hashlib
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, text

from db.sql import array, each_message


def content_hash(message: str) -> bytes:
    """The 16 bytes that PostgreSQL's md5(message)::uuid gives for a text, as in text_messages.content_hash."""
    return hashlib.md5(message.encode(), usedforsecurity=False).digest()


def stored_hashes(connection: Connection, ids: Iterable[object]) -> Sequence[tuple[str, str]]:
    """The id of each of the messages that is there, and its content hash, both as UUIDs are written."""
    return connection.execute(
        text(f"SELECT m.id::text, m.content_hash::text FROM {each_message('id, content_hash')}"), {"ids": array(ids)}
    ).all()
