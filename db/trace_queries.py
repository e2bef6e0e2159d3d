"""What the database knows of the way of one message: its vectors, what waits, failed or was deleted. Nothing writes."""

from sqlalchemy import Connection, text

from db.queries import Row
from db.sql import ACTIVE


def message(connection: Connection, message_id: str) -> Row | None:
    """The message with what has become of its present text, in one look, or None.

    `version` is [timestamp, partition, offset]; `model`, `passages` and `embedded_at` are of the active model, None
    while it has no vectors of this text; `index_part` is the part that holds the last of them.
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


def message_at(connection: Connection, partition: int, offset: int) -> str | None:
    """The id of the message whose text, or whose deletion, came with the record at this place of the log, or None.

    Plan: a scan of the tables. For a record that the log has lost; any other record names its message itself.
    """
    place = "version_partition = :partition AND version_offset = :offset"
    return connection.execute(
        text(f"""
            SELECT id::text FROM text_messages WHERE {place}
            UNION ALL SELECT id::text FROM deleted_messages WHERE {place} LIMIT 1
        """),
        {"partition": partition, "offset": offset},
    ).scalar_one_or_none()
