"""The second set of vectors, while the model is changed (db.reembedding): what it still lacks, the jobs that make it,
the switch to it, and its end. Each step runs in the caller's transaction.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, text

from db import index_catalogue, index_plan
from db.outbox import SECOND_JOB, SET_BACK, WEIGHT
from db.reembedding import Change, set_state
from db.sql import array
from portions import portions
from settings import Settings

SCAN_ROWS = 2_000
# Takes the default model less than a tenth of a second: a new message may have to wait that long for such a task.
JOB_BYTES = 4_000
DROP_ROWS = 10_000


class SecondWaiting(NamedTuple):
    """A job of the second set, as outbox.Waiting; `length` are the bytes of its texts."""

    id: int
    messages: int
    weight: int
    length: int


def scan(connection: Connection, change: Change) -> None:
    """Looks at the next messages and queues those that have no vector of the second set, and are not queued for it."""
    after = "WHERE m.id > :cursor ::uuid" if change.scanned_to is not None else ""
    rows = connection.execute(
        text(f"""
            WITH queued AS MATERIALIZED (
                SELECT unnest(message_ids) AS id FROM embedding_jobs WHERE model = :model
            )
            SELECT p.id::text, p.bytes, p.id NOT IN (SELECT id FROM queued) AND NOT EXISTS (
                    SELECT FROM message_embeddings e
                    WHERE e.message_id = p.id AND e.model = :model AND e.content_hash = p.content_hash OFFSET 0)
                AND NOT EXISTS (
                    SELECT FROM embedding_failures f
                    WHERE f.message_id = p.id AND f.model = :model AND f.content_hash = p.content_hash OFFSET 0)
                    AS missing  -- OFFSET 0: each is looked up, or every piece would read the whole second set
            FROM (SELECT m.id, m.content_hash, octet_length(m.message) AS bytes
                  FROM text_messages m {after} ORDER BY m.id LIMIT :rows) AS p
            ORDER BY p.id
        """),
        {"model": change.model, "rows": SCAN_ROWS, "cursor": change.scanned_to},
    ).all()
    missing = [row[0] for row in rows if row[2]]
    lengths = [row[1] for row in rows if row[2]]
    small = portions(([1] * len(missing), SECOND_JOB), (lengths, JOB_BYTES))
    queue(connection, change.model, [missing[portion] for portion in small])
    connection.execute(
        text("UPDATE reembedding SET scanned_to = coalesce(:cursor ::uuid, scanned_to), scanned = :scanned"),
        {"cursor": rows[-1][0] if rows else None, "scanned": len(rows) < SCAN_ROWS},
    )


def queue(connection: Connection, model: str, jobs: Sequence[Sequence[str]]) -> None:
    """Writes one job for each group of messages."""
    if jobs:
        connection.execute(
            text("""
                INSERT INTO embedding_jobs (message_ids, model) SELECT array_agg(id), :model
                FROM unnest(:places ::int[], :ids ::uuid[]) AS given (place, id) GROUP BY place ORDER BY place
            """),
            {
                "places": array(place for place, ids in enumerate(jobs) for _ in ids),
                "ids": array(message_id for ids in jobs for message_id in ids),
                "model": model,
            },
        )


def take(connection: Connection, model: str, *, messages: int, seconds: float) -> list[SecondWaiting]:
    """Reserves jobs of the second set for `seconds`, the oldest first, with about so many messages by their weight."""
    rows = connection.execute(
        text(f"""
            WITH waiting AS (
                SELECT id, {WEIGHT} AS weight FROM embedding_jobs
                WHERE model = :model AND (available_at <= clock_timestamp()
                    OR available_at > {SET_BACK})
                ORDER BY id LIMIT :messages FOR UPDATE SKIP LOCKED
            ), chosen AS (
                SELECT id, weight FROM (
                    SELECT id, weight, sum(weight) OVER (ORDER BY id) - weight AS before FROM waiting) AS running
                WHERE before < :messages
            )
            UPDATE embedding_jobs j SET lease = NULL,
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            FROM chosen WHERE j.id = chosen.id
            RETURNING j.id, cardinality(j.message_ids), weight, (
                SELECT coalesce(sum(octet_length(m.message)), 0) FROM text_messages m WHERE m.id = ANY (j.message_ids))
        """),
        {"messages": messages, "task": SECOND_JOB, "seconds": seconds, "model": model},
    )
    return sorted(SecondWaiting(row[0], row[1], row[2], int(row[3])) for row in rows)


def waiting(connection: Connection, model: str) -> int:
    """Messages that are queued for the second set."""
    return int(
        connection.execute(
            text("SELECT coalesce(sum(cardinality(message_ids)), 0) FROM embedding_jobs WHERE model = :model"),
            {"model": model},
        ).scalar_one()
    )


def is_indexed(connection: Connection, model: str, settings: Settings) -> bool:
    """Whether a search over this set would be as fast as it can be: nothing of it waits for an index."""
    found = next((each for each in index_catalogue.models(connection, settings) if each.name == model), None)
    if found is None:
        return True  # no index is wanted, or none is possible for so many dimensions
    limits = index_plan.Limits.of(settings, found.dimensions)
    return index_plan.is_quick(index_catalogue.situation(connection, found, limits), limits)


def set_closing(connection: Connection, *, closing: bool) -> None:
    """Sets whether what comes in from now on gets both vectors in one go, so that a moment comes at which none is
    missing."""
    connection.execute(
        text("UPDATE reembedding SET state = :state, changed_at = clock_timestamp()"),
        {"state": "closing" if closing else "running"},
    )
    connection.execute(text("UPDATE embedding_models SET follow_now = :closing WHERE active"), {"closing": closing})


def switch(connection: Connection, change: Change) -> bool:
    """Makes the second set the active one, if at this moment no message waits for its vector in it; returns whether it
    did. The whole switch is in this transaction."""
    active = connection.execute(text("SELECT name FROM embedding_models WHERE active FOR UPDATE")).scalar_one()
    if connection.execute(
        text("SELECT EXISTS (SELECT FROM embedding_jobs WHERE model = :model)"), {"model": change.model}
    ).scalar_one():
        return False
    connection.execute(
        text("""
            UPDATE embedding_models n SET instead_of = (
                SELECT coalesce(jsonb_agg(DISTINCT each.value), '[]') FROM embedding_models o,
                    jsonb_array_elements(n.instead_of || o.instead_of || jsonb_build_array(o.settings)) AS each
                WHERE o.name = :active AND each.value <> 'null' AND each.value <> n.settings)
            WHERE n.name = :model
        """),
        {"active": active, "model": change.model},
    )
    connection.execute(text("UPDATE embedding_models SET active = FALSE, followed_by = NULL, follow_now = FALSE"))
    connection.execute(text("UPDATE embedding_models SET active = TRUE WHERE name = :model"), {"model": change.model})
    set_state(connection, "switched", change.model, old=active, undoing=False)
    return True


def drop_piece(connection: Connection, change: Change) -> bool:
    """Deletes a piece of the set that nobody wants any more; returns whether there may be more."""
    values = {"model": change.model, "rows": DROP_ROWS}
    connection.execute(
        text("""
            DELETE FROM embedding_jobs WHERE id IN (
                SELECT id FROM embedding_jobs WHERE model = :model LIMIT :rows FOR UPDATE SKIP LOCKED)
        """),
        values,
    )
    deleted = connection.execute(
        text("""
            DELETE FROM message_embeddings WHERE ctid = ANY (ARRAY(
                SELECT ctid FROM message_embeddings WHERE model = :model LIMIT :rows))
        """),
        values,
    ).rowcount
    if deleted or waiting(connection, change.model):
        return True
    connection.execute(text("DELETE FROM embedding_failures WHERE model = :model"), values)
    connection.execute(text("DELETE FROM embedding_models WHERE name = :model AND NOT active"), values)
    connection.execute(text("DELETE FROM reembedding"))
    return False
