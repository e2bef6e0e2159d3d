"""How far a change to another model is, for GET /status and the command line. Only reads."""

from typing import Any

from sqlalchemy import Connection, text

from db.sql import ACTIVE

# A worker that cannot make the second set's vectors tries again, and says so again, within this time.
PROBLEM_SECONDS = 60.0

COUNTED = """
    (SELECT count(*) FROM message_embeddings e WHERE e.model = r.model AND e.passage_number = 0) AS embedded,
    (SELECT count(*) FROM embedding_failures f WHERE f.model = r.model) AS failed,
    (SELECT count(*) FROM text_messages) AS messages"""
UNCOUNTED = "NULL AS embedded, NULL AS failed, NULL AS messages"


def status(connection: Connection) -> dict[str, Any] | None:
    """What api.schemas.Reembedding describes; None if no change is under way and no old set is kept."""
    return read(connection, COUNTED)


def uncounted(connection: Connection) -> dict[str, Any] | None:
    """The same, with None for its numbers, which take long to count in a large table."""
    return read(connection, UNCOUNTED)


def read(connection: Connection, counts: str) -> dict[str, Any] | None:
    row = connection.execute(
        text(f"""
            SELECT r.state, r.model, m.dimensions, r.old_model, r.undoing, r.scanned,
                CASE WHEN r.problem_at > clock_timestamp() - make_interval(secs => :fresh) THEN r.problem END
                    AS problem,
                to_json(r.started_at) #>> '{{}}' AS started_at,
                {ACTIVE} AS active,
                EXISTS (SELECT FROM embedding_jobs j WHERE j.model = r.model) AS waiting, {counts}
            FROM reembedding r LEFT JOIN embedding_models m ON m.name = r.model
        """),
        {"fresh": PROBLEM_SECONDS},
    ).one_or_none()
    if row is None:
        return None
    state = row.state
    if state == "running":
        state = "indexing" if row.scanned and not row.waiting else "embedding"
    elif state == "closing":
        state = "switching"
    return {
        "state": state,
        "model": row.model,
        "dimensions": row.dimensions,
        "from_model": row.old_model if row.state == "switched" else row.active,
        "undoing": row.undoing,
        "done": row.embedded + row.failed if row.embedded is not None else None,
        "failed": row.failed,
        "total": row.messages,
        "started_at": row.started_at,
        "problem": row.problem,
    }
