"""What the console shows beyond the reads of the APIs: dead letters and failed embeddings page by page, which words of
a hit are the query's, how fresh the search is. Nothing writes.
"""

import base64
import binascii
import re
from collections.abc import Collection, Sequence
from typing import Any

import simplejson
from sqlalchemy import Connection, text

from db.queries import ACTIVE, Row

PREVIEW_BYTES = 600
PREVIEW_CHARS = 300


class InvalidCursor(ValueError):
    """The cursor is none that a page of this list has given."""


def can_be_asked(given: str) -> bool:
    """Whether a query can carry this text: psycopg2 raises ValueError for NUL, and for half of a surrogate pair."""
    return not re.search("[\x00\ud800-\udfff]", given)


def write_cursor(*place: object) -> str:
    return base64.urlsafe_b64encode(simplejson.dumps(place).encode()).decode()


def read_cursor(cursor: str, *kinds: type) -> list[Any]:
    """Raises InvalidCursor for one that `write_cursor` has not made of values of these types."""
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


def dead_letter_counts(connection: Connection) -> list[Row]:
    """{"reason", "count", "newest"} of the open dead letters, the most frequent first. Plan: dead_letters_open."""
    rows = connection.execute(
        text("""
            SELECT reason, count(*) AS count, to_json(max(created_at)) #>> '{}' AS newest
            FROM dead_letters WHERE state = 'open' GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 50
        """)
    )
    return [dict(row) for row in rows.mappings()]


def dead_letter_page(
    connection: Connection, *, limit: int, reason: str | None = None, cursor: str | None = None
) -> Row:
    """Open dead letters, newest first: {"letters", "next"}; `value` is the beginning of it. Raises InvalidCursor.

    Plan: dead_letters_open in order.
    """
    where, values = ["state = 'open'"], {"limit": limit + 1, "preview": PREVIEW_BYTES}
    if reason is not None:
        where.append("reason = :reason")
        values["reason"] = reason  # type: ignore[assignment]
    if cursor is not None:
        place = read_cursor(cursor, str, str, int, int)
        where.append(
            'created_at <= :at ::timestamptz AND (created_at, topic, partition, "offset")'
            " < (:at ::timestamptz, :topic, :partition, :offset)"
        )
        values |= dict(zip(("at", "topic", "partition", "offset"), place, strict=True))
    rows = connection.execute(
        text(f"""
            SELECT topic, partition, "offset", timestamp, reason, detail, value_bytes,
                substring(value FROM 1 FOR :preview) AS value, to_json(created_at) #>> '{{}}' AS created_at
            FROM dead_letters WHERE {" AND ".join(where)}
            ORDER BY dead_letters.created_at DESC, topic DESC, partition DESC, "offset" DESC LIMIT :limit
        """),
        values,
    )
    found = [dict(row) for row in rows.mappings()]
    page, following = found[:limit], None
    if len(found) > limit:
        last = page[-1]
        following = write_cursor(last["created_at"], last["topic"], last["partition"], last["offset"])
    return {"letters": page, "next": following}


def dead_letter(connection: Connection, topic: str, partition: int, offset: int) -> Row | None:
    """All that the table knows of a dead letter, or None."""
    row = connection.execute(
        text("""
            SELECT topic, partition, "offset", timestamp, reason, detail, state, key, value, value_bytes,
                headers::text AS headers,
                to_json(created_at) #>> '{}' AS created_at, to_json(state_changed_at) #>> '{}' AS state_changed_at
            FROM dead_letters WHERE topic = :topic AND partition = :partition AND "offset" = :offset
        """),
        {"topic": topic, "partition": partition, "offset": offset},
    )
    found = row.mappings().one_or_none()
    # As text, because the APIs leave JSONB unread: metadata goes out as it came.
    return {**found, "headers": simplejson.loads(found["headers"])} if found else None


def failure_page(connection: Connection, *, limit: int, cursor: str | None = None) -> Row:
    """Messages whose embedding failed, the latest first: {"failures", "next"}; `newest` of each is when the latest of
    all failed, whichever page it is. Raises InvalidCursor.

    The page is cut off before its texts are looked up: PostgreSQL would rather look up the message of every failure
    and sort those. A failure whose message was just deleted counts for the page, and is not shown.
    """
    values: Row = {"limit": limit + 1, "preview": PREVIEW_CHARS}
    where = "TRUE"
    if cursor is not None:
        values["at"], values["id"] = read_cursor(cursor, str, str)
        where = "(f.failed_at, f.message_id::text) < (:at ::timestamptz, :id)"
    rows = connection.execute(
        text(f"""
            SELECT f.message_id::text AS id, m.source_id, f.reason, f.attempts, f.model,
                to_json(f.failed_at) #>> '{{}}' AS failed_at, left(m.message, :preview) AS message,
                length(m.message) AS characters, (SELECT to_json(max(failed_at)) #>> '{{}}' FROM embedding_failures
                    WHERE model = coalesce({ACTIVE}, model)) AS newest
            FROM (
                SELECT * FROM embedding_failures f WHERE f.model = coalesce({ACTIVE}, f.model) AND {where}
                ORDER BY f.failed_at DESC, f.message_id::text DESC LIMIT :limit
            ) AS f LEFT JOIN LATERAL (SELECT * FROM text_messages t WHERE t.id = f.message_id OFFSET 0) AS m ON TRUE
            ORDER BY f.failed_at DESC, f.message_id::text DESC
        """),
        values,
    )
    found = [dict(row) for row in rows.mappings()]
    page = found[:limit]
    following = write_cursor(page[-1]["failed_at"], page[-1]["id"]) if len(found) > limit else None
    return {"failures": [row for row in page if row["message"] is not None], "next": following}


def ages(connection: Connection, message_ids: Sequence[str]) -> list[float]:
    """Of messages that were just embedded, the seconds since their record came into the log (since the row was written,
    where somebody typed it). Without those that were stored before the model was chosen: they are embedded anew."""
    rows = connection.execute(
        text("""
            SELECT extract(epoch FROM clock_timestamp() - CASE WHEN m.version_timestamp < 0 THEN m.processed_at
                ELSE to_timestamp(m.version_timestamp / 1000.0) END)::float
            FROM text_messages m JOIN embedding_models a ON a.active
            WHERE m.id = ANY (:ids ::uuid[]) AND m.processed_at >= a.created_at AND isfinite(m.processed_at)
                AND m.version_timestamp < 253402300799000
        """),
        {"ids": "{" + ",".join(message_ids) + "}"},
    )
    return list(rows.scalars())


def words_of_query(connection: Connection, query: str, words: Collection[str], language: str) -> set[str]:
    """Those of the words that full text search takes for one of the query's: "cats" for "cat" in English."""
    rows = connection.execute(
        text("""
            SELECT word FROM unnest(:words ::text[]) AS given (word)
            WHERE tsvector_to_array(to_tsvector(:language ::regconfig, word))
                && tsvector_to_array(to_tsvector(:language ::regconfig, :query ::text))
        """),
        {"words": list(words), "query": query, "language": language},
    )
    return set(rows.scalars())
