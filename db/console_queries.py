"""What the console shows beyond the reads of the APIs and dead letters: failed embeddings page by page, which words of
a hit are the query's, how fresh the search is. Nothing writes.
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from sqlalchemy import Connection, text

from db import cursors
from db.queries import Row
from db.sql import ACTIVE
from records import LAST_MS

PREVIEW_CHARS = 300


def failure_page(connection: Connection, *, limit: int, cursor: str | None = None) -> Row:
    """Messages whose embedding failed, the latest first: {"failures", "next"}; `newest` of each is when the latest of
    all failed, whichever page it is. Raises InvalidCursor.

    The page is cut off before its texts are looked up: PostgreSQL would rather look up the message of every failure
    and sort those. A failure whose message was just deleted counts for the page, and is not shown.
    """
    values: Row = {"limit": limit + 1, "preview": PREVIEW_CHARS}
    where = "TRUE"
    if cursor is not None:
        values["at"], values["id"] = cursors.read(cursor, str, str)
        where = "(f.failed_at, f.message_id::text) < (:at ::timestamptz, :id)"
    rows = connection.execute(
        text(f"""
            SELECT f.message_id::text AS id, m.source_id, f.reason, f.attempts, f.model,
                to_json(f.failed_at) #>> '{{}}' AS failed_at, left(m.message, :preview) AS message,
                length(m.message) > :preview AS is_cut,
                (SELECT to_json(max(failed_at)) #>> '{{}}' FROM embedding_failures
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
    following = cursors.write(page[-1]["failed_at"], page[-1]["id"]) if len(found) > limit else None
    return {"failures": [row for row in page if row["message"] is not None], "next": following}


def ages(connection: Connection, queued: Mapping[str, datetime | None], topic: str) -> list[float]:
    """For messages that were just embedded, the seconds since their record came into the log (or, if somebody typed the
    row, since it was written). `queued` says by message id when the job of that embedding was created (None: with the
    row).

    A text of long ago that became searchable only now is left out, unless it waited for the pipeline all the while: one
    that was edited by hand, or embedded once more, has a job that is later than its row; one of a replayed dead letter
    keeps its version; one that was stored before the model was chosen is embedded anew.
    """
    rows = connection.execute(
        text(f"""
            SELECT extract(epoch FROM clock_timestamp() - CASE WHEN m.version_timestamp < 0 THEN m.processed_at
                -- A row that was typed for an id that was deleted before has the version of the deletion.
                ELSE greatest(m.created_at, to_timestamp(m.version_timestamp / 1000.0)) END)::float
            FROM unnest(:ids ::uuid[], :queued ::timestamptz[]) AS done (id, queued_at)
            CROSS JOIN LATERAL (
                SELECT created_at, processed_at, version_timestamp, version_partition, version_offset
                FROM text_messages WHERE id = done.id OFFSET 0
            ) AS m JOIN embedding_models a ON a.active
            WHERE m.processed_at >= a.created_at AND isfinite(m.processed_at) AND m.version_timestamp < {LAST_MS}
                AND m.processed_at = coalesce(done.queued_at, m.processed_at)  -- both are of one transaction
                AND NOT EXISTS (
                    SELECT FROM dead_letters d WHERE d.topic = :topic AND d.partition = m.version_partition
                        AND d."offset" = m.version_offset AND d.timestamp = m.version_timestamp)
        """),
        {"ids": list(queued), "queued": list(queued.values()), "topic": topic},
    )
    return list(rows.scalars())


def words_of_query(connection: Connection, query: str, words: Collection[str], language: str) -> set[str]:
    """The words that full text search takes for one of the query's, such as "cats" for "cat" in English."""
    rows = connection.execute(
        text("""
            SELECT word FROM unnest(:words ::text[]) AS given (word)
            WHERE tsvector_to_array(to_tsvector(:language ::regconfig, parsable_text(word)))
                && tsvector_to_array(to_tsvector(:language ::regconfig, parsable_text(:query ::text)))
        """),
        {"words": list(words), "query": query, "language": language},
    )
    return set(rows.scalars())
