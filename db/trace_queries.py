"""What the database knows of the way of one record: the message, its vectors, what waits, failed, was deleted or could
not be stored. Nothing writes."""

import json
import re
from collections.abc import Sequence

from sqlalchemy import Connection, text

from db.queries import ACTIVE, Row

LETTERS_MOST = 20
LETTERS_SEARCHED = 1_000  # open dead letters whose value is looked into for an id


def message(connection: Connection, message_id: str) -> Row | None:
    """The message with what has become of its present text, in one look, or None.

    `version` is [timestamp, partition, offset]; `model`, `passages` and `embedded_at` are of the active model, None
    where it has no vectors of this text yet; `index_part` is the part that holds the last of them.
    """
    row = connection.execute(
        text(f"""
            SELECT m.id::text AS id, m.source_id,
                ARRAY[m.version_timestamp, m.version_partition, m.version_offset] AS version,
                to_json(m.created_at) #>> '{{}}' AS created_at, to_json(m.processed_at) #>> '{{}}' AS processed_at,
                e.model, e.passages, e.embedded_at, p.id AS index_part,
                f.reason AS failure, f.failed_at, f.attempts AS failure_attempts, f.model AS failure_model,
                j.waits_since, j.attempts, j.next_at, j.held
            FROM text_messages m
            LEFT JOIN LATERAL (
                SELECT e.model, count(*) AS passages, to_json(max(e.created_at)) #>> '{{}}' AS embedded_at,
                    max(e.id) AS last
                FROM message_embeddings e
                WHERE e.message_id = m.id AND e.content_hash = m.content_hash AND e.model = {ACTIVE}
                GROUP BY e.model
            ) AS e ON TRUE
            LEFT JOIN LATERAL (
                SELECT p.id FROM vector_index_parts p
                WHERE p.model = e.model AND p.state = 'ready' AND e.last >= p.from_id AND e.last < p.to_id
                ORDER BY p.id LIMIT 1
            ) AS p ON TRUE
            LEFT JOIN LATERAL (
                SELECT f.reason, f.attempts, f.model, to_json(f.failed_at) #>> '{{}}' AS failed_at
                FROM embedding_failures f
                WHERE f.message_id = m.id AND f.content_hash = m.content_hash AND f.model = coalesce({ACTIVE}, f.model)
                ORDER BY f.failed_at DESC LIMIT 1
            ) AS f ON TRUE
            LEFT JOIN LATERAL (
                SELECT to_json(j.created_at) #>> '{{}}' AS waits_since, j.attempts,
                    to_json(j.available_at) #>> '{{}}' AS next_at,
                    j.lease IS NOT NULL AND j.available_at > clock_timestamp() AS held
                FROM embedding_jobs j WHERE m.id = ANY (j.message_ids) AND NOT j.deleted AND j.model IS NULL
                ORDER BY j.id LIMIT 1
            ) AS j ON TRUE
            WHERE m.id = :id ::uuid
        """),
        {"id": message_id},
    )
    found = row.mappings().one_or_none()
    return dict(found) if found else None


def deletion(connection: Connection, message_id: str) -> Row | None:
    """The remembered deletion of a message: {"id", "version", "deleted_at"}, or None."""
    row = connection.execute(
        text("""
            SELECT id::text AS id, ARRAY[version_timestamp, version_partition, version_offset] AS version,
                to_json(deleted_at) #>> '{}' AS deleted_at
            FROM deleted_messages WHERE id = :id ::uuid
        """),
        {"id": message_id},
    )
    found = row.mappings().one_or_none()
    return dict(found) if found else None


LETTER = """topic, partition, "offset", timestamp, reason, detail, state,
    to_json(created_at) #>> '{}' AS noted_at, to_json(state_changed_at) #>> '{}' AS state_changed_at"""


def dead_letter(connection: Connection, topic: str, partition: int, offset: int) -> Row | None:
    row = connection.execute(
        text(
            f'SELECT {LETTER} FROM dead_letters WHERE topic = :topic AND partition = :partition AND "offset" = :offset'
        ),
        {"topic": topic, "partition": partition, "offset": offset},
    )
    found = row.mappings().one_or_none()
    return dict(found) if found else None


def dead_letters_of(connection: Connection, ids: Sequence[str]) -> list[Row]:
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


def message_at(connection: Connection, partition: int, offset: int) -> str | None:
    """The id of the message whose text, or whose deletion, came with the record at this place of the log, or None.

    Plan: a scan of the tables. For a record that the log has lost; all others say themselves whose they are.
    """
    place = "version_partition = :partition AND version_offset = :offset"
    return connection.execute(
        text(f"""
            SELECT id::text FROM text_messages WHERE {place}
            UNION ALL SELECT id::text FROM deleted_messages WHERE {place} LIMIT 1
        """),
        {"partition": partition, "offset": offset},
    ).scalar_one_or_none()
