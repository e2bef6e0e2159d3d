"""What the console's buttons write: dead letters that are dropped, and failed embeddings that are queued once more.

Each function runs in the caller's transaction and never commits. "All of a reason" means those that were there when the
button was pressed, in pieces, so that no transaction is long.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from db.commands import array
from db.console_queries import dead_letter
from db.queries import ACTIVE, Row


def now(connection: Connection) -> str:
    """The time by the database's clock, which has also stamped what it is compared with."""
    return str(connection.execute(text("SELECT clock_timestamp()::text")).scalar_one())


def open_letters(
    connection: Connection, *, reason: str | None, until: str, cursor: str | None, limit: int
) -> tuple[list[Row], str | None]:
    """A piece of the open dead letters that were noted until then, the oldest first, with what the table kept of them;
    and the cursor of the next piece, or None. Plan: dead_letters_open, backwards."""
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
    # A time has a space in it, and is in UTC as the connection is: 2025-01-31 12:00:00.123+00
    day, clock, partition, offset, topic = cursor.split(" ", 4)
    return {"at": f"{day} {clock}", "partition": int(partition), "offset": int(offset), "topic": topic}


def letters_by_name(connection: Connection, keys: Sequence[tuple[str, int, int]]) -> list[Row]:
    """The dead letters with these (topic, partition, offset) that there are, with what the table kept of them."""
    return [row for key in keys if (row := dead_letter(connection, *key)) is not None]


def drop_letters(connection: Connection, *, reason: str | None, until: str, limit: int) -> int:
    """Drops at most `limit` of the open dead letters that were noted until then; returns how many it dropped."""
    return connection.execute(
        text(f"""
            UPDATE dead_letters d SET state = 'dropped', state_changed_at = clock_timestamp()
            FROM (SELECT topic, partition, "offset" FROM dead_letters
                  WHERE state = 'open' AND created_at <= :until ::timestamptz
                      {"AND reason = :reason" if reason is not None else ""}
                  ORDER BY created_at LIMIT :limit FOR UPDATE) AS chosen
            WHERE d.topic = chosen.topic AND d.partition = chosen.partition AND d."offset" = chosen."offset"
        """),
        {"reason": reason, "until": until, "limit": limit},
    ).rowcount


def retry_failures(connection: Connection, message_ids: Sequence[str] | None, *, until: str, limit: int | None) -> int:
    """Queues messages again whose embedding by the active model has failed: of these, or of all (None), those that
    failed until then, at most `limit` (None: however many); returns how many."""
    chosen = "TRUE" if message_ids is None else "message_id = ANY (:ids ::uuid[])"
    return int(
        connection.execute(
            text(f"""
                WITH chosen AS (
                    SELECT message_id, model FROM embedding_failures
                    WHERE model = coalesce({ACTIVE}, model) AND failed_at <= :until ::timestamptz AND {chosen}
                    ORDER BY message_id LIMIT :limit FOR UPDATE
                ), gone AS (
                    DELETE FROM embedding_failures f USING chosen
                    WHERE f.message_id = chosen.message_id AND f.model = chosen.model
                    RETURNING f.message_id
                )
                SELECT count(*), queue_embedding(array_agg(message_id)) FROM gone
            """),
            {"ids": array(message_ids or ()), "until": until, "limit": limit},
        ).scalar_one()
    )
