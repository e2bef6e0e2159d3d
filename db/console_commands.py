"""What the console's buttons write beside dead letters: failed embeddings that are queued once more.

Each function runs in the caller's transaction and never commits. "All" means what was there when the button was
pressed; it is done in pieces, so that no transaction is long.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, text

from db.sql import ACTIVE, array


def now(connection: Connection) -> str:
    """The time by the database's clock, which also stamped the rows that it is compared with."""
    return str(connection.execute(text("SELECT clock_timestamp()::text")).scalar_one())


def retry_failures(connection: Connection, message_ids: Sequence[str] | None, *, until: str, limit: int | None) -> int:
    """Queues again the messages, of these or of all (None), whose embedding by the active model failed up to `until`;
    at most `limit` of them (None: no limit). Returns how many."""
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
