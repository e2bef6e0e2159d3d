"""All that is read of the table of dead letters: for the lists of the console and the command line, for a replay, for
the trace of a message. Nothing writes.
"""

import json
import re
from collections.abc import Sequence

import simplejson
from sqlalchemy import Connection, text

from db import cursors
from db.queries import Row

PREVIEW_BYTES = 600
LETTERS_MOST = 20
LETTERS_SEARCHED = 1_000  # open dead letters whose value is looked into for an id


def counts(connection: Connection) -> list[Row]:
    """{"reason", "count", "newest"} of the open dead letters, the most frequent first. Plan: dead_letters_open."""
    rows = connection.execute(
        text("""
            SELECT reason, count(*) AS count, to_json(max(created_at)) #>> '{}' AS newest
            FROM dead_letters WHERE state = 'open' GROUP BY reason ORDER BY count(*) DESC, reason LIMIT 50
        """)
    )
    return [dict(row) for row in rows.mappings()]


def page(connection: Connection, *, limit: int, reason: str | None = None, cursor: str | None = None) -> Row:
    """Open dead letters, newest first: {"letters", "next"}; `value` is only its beginning. Raises InvalidCursor.

    Plan: dead_letters_open in order.
    """
    where, values = ["state = 'open'"], {"limit": limit + 1, "preview": PREVIEW_BYTES}
    if reason is not None:
        where.append("reason = :reason")
        values["reason"] = reason  # type: ignore[assignment]
    if cursor is not None:
        place = cursors.read(cursor, str, str, int, int)
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
    letters, following = found[:limit], None
    if len(found) > limit:
        last = letters[-1]
        following = cursors.write(last["created_at"], last["topic"], last["partition"], last["offset"])
    return {"letters": letters, "next": following}


def newest(
    connection: Connection, *, state: str | None = "open", reason: str | None = None, limit: int = 100
) -> list[Row]:
    """Dead letters, newest first, without their bytes: coordinates, reason, detail, state, times. None means any."""
    rows = connection.execute(
        text(f"""
            SELECT topic, partition, "offset", timestamp, reason, detail, state, value_bytes,
                to_json(created_at) #>> '{{}}' AS created_at FROM dead_letters
            WHERE {"state = :state" if state else "TRUE"} {"AND reason = :reason" if reason else ""}
            ORDER BY dead_letters.created_at DESC, topic, partition, "offset" LIMIT :limit
        """),
        {"state": state, "reason": reason, "limit": limit},
    )
    return [dict(row) for row in rows.mappings()]


WHOLE = """topic, partition, "offset", timestamp, reason, detail, state, key, value, value_bytes,
    headers::text AS headers,
    to_json(created_at) #>> '{}' AS created_at, to_json(state_changed_at) #>> '{}' AS state_changed_at"""
LETTER = """topic, partition, "offset", timestamp, reason, detail, state,
    to_json(created_at) #>> '{}' AS noted_at, to_json(state_changed_at) #>> '{}' AS state_changed_at"""


def one(connection: Connection, topic: str, partition: int, offset: int) -> Row | None:
    """All that the table knows of a dead letter, or None."""
    found = at_place(connection, WHOLE, topic, partition, offset)
    # As text, because the APIs leave JSONB unread: metadata goes out as it came.
    return {**found, "headers": simplejson.loads(found["headers"])} if found else None


def one_without_bytes(connection: Connection, topic: str, partition: int, offset: int) -> Row | None:
    return at_place(connection, LETTER, topic, partition, offset)


def at_place(connection: Connection, columns: str, topic: str, partition: int, offset: int) -> Row | None:
    row = connection.execute(
        text(
            f'SELECT {columns} FROM dead_letters WHERE topic = :topic AND partition = :partition AND "offset" = :offset'
        ),
        {"topic": topic, "partition": partition, "offset": offset},
    )
    found = row.mappings().one_or_none()
    return dict(found) if found else None


def reason_of(
    connection: Connection, topic: str, timestamp: int, partition: int, offset: int
) -> tuple[str, str] | None:
    """Reason and detail of the open dead letter that the record at these coordinates became, or None."""
    row = connection.execute(
        text("""
            SELECT reason, detail FROM dead_letters
            WHERE topic = :topic AND partition = :partition AND "offset" = :offset AND timestamp = :timestamp
                AND state = 'open'
        """),
        {"topic": topic, "partition": partition, "offset": offset, "timestamp": timestamp},
    ).one_or_none()
    return (row[0], row[1]) if row else None


def of_message(connection: Connection, ids: Sequence[str]) -> list[Row]:
    """Dead letters of a message by these forms of its id, newest first: those with one as their key, and of the newest
    open ones those that name one as their "id". Plan: a scan of the keys, which are small beside the values."""
    keys = [each.encode() for each in ids]
    # As senders write it: with and without escapes for what is not ASCII.
    named = {json.dumps(each, ensure_ascii=escapes).encode() for each in ids for escapes in (True, False)}
    contains = " OR ".join(f"position(:named{number} ::bytea IN value) > 0" for number in range(len(named)))
    rows = connection.execute(
        text(f"""
            SELECT {LETTER}, NULL AS value FROM dead_letters
            WHERE key IN ({", ".join(f":key{number}" for number in range(len(keys)))})
            UNION ALL
            (SELECT {LETTER}, value FROM (
                SELECT * FROM dead_letters WHERE state = 'open' ORDER BY created_at DESC LIMIT {LETTERS_SEARCHED}
            ) AS newest WHERE {contains})
            ORDER BY noted_at DESC LIMIT {2 * LETTERS_MOST}
        """),
        {f"key{number}": each for number, each in enumerate(keys)}
        | {f"named{number}": each for number, each in enumerate(named)},
    )
    is_id = re.compile(rb'"id"\s*:\s*(' + b"|".join(map(re.escape, named)) + rb")")
    found: dict[tuple[str, int, int], Row] = {}
    for row in map(dict, rows.mappings()):
        value = row.pop("value")
        if value is None or is_id.search(bytes(value)):
            found.setdefault((row["topic"], row["partition"], row["offset"]), row)
    return list(found.values())[:LETTERS_MOST]


def by_key(connection: Connection, keys: Sequence[tuple[str, int, int]]) -> list[Row]:
    """The dead letters with these (topic, partition, offset) that there are, with what the table kept of them."""
    return [row for key in keys if (row := one(connection, *key)) is not None]


def open_until(
    connection: Connection, *, reason: str | None, until: str, cursor: str | None, limit: int
) -> tuple[list[Row], str | None]:
    """A piece of the open dead letters that were noted up to `until`, the oldest first, with what the table kept of
    them; and the cursor of the next piece, or None. Plan: dead_letters_open, backwards."""
    rows = connection.execute(
        text(f"""
            SELECT topic, partition, "offset", timestamp, state, key, value, value_bytes, headers,
                concat_ws(' ', created_at, partition, "offset", topic) AS cursor
            FROM dead_letters
            WHERE state = 'open' AND created_at <= :until ::timestamptz
                {"AND reason = :reason" if reason is not None else ""}
                {AFTER if cursor is not None else ""}
            ORDER BY created_at, partition, "offset", topic LIMIT :limit
        """),
        {"until": until, "reason": reason, "limit": limit, **(after(cursor) if cursor is not None else {})},
    )
    found = [dict(row) for row in rows.mappings()]
    return found, found[-1]["cursor"] if len(found) == limit else None


AFTER = """AND created_at >= :at ::timestamptz
    AND (created_at, partition, "offset", topic) > (:at ::timestamptz, :partition ::int, :offset ::bigint, :topic)"""


def after(cursor: str) -> Row:
    # Not in the form of `cursors`: a task that waits in Redis carries it, also while workers of two releases run. The
    # time has a space in it, and is in UTC, as the connection is: 2025-01-31 12:00:00.123+00
    day, clock, partition, offset, topic = cursor.split(" ", 4)
    return {"at": f"{day} {clock}", "partition": int(partition), "offset": int(offset), "topic": topic}
