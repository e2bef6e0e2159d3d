"""The catalogue of the vector index, read: which models have parts, what is built, what is in disorder, and the status.

Parts are made and dropped in db.vector_index.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db import index_plan
from db.index_plan import Limits, Part, Range, Situation
from settings import Settings

BUILDER_LOCK = 7_263_511_902
NAME = "message_embeddings_part_"
# pgvector indexes halfvec up to so many dimensions; vectors of more are always scanned exactly.
MAX_DIMENSIONS = 4_000
# A search asks right after it has read the catalogue, so none misses an index that is dropped this long after.
RETIRE_SECONDS = 5.0
COUNT_SECONDS = 60.0
# A model that has one of so many newest vectors is being written.
NEWEST = 200


@dataclass(frozen=True)
class Model:
    """A model whose vectors want an index."""

    name: str
    dimensions: int
    active: bool


def models(connection: Connection, settings: Settings) -> list[Model]:
    """The models whose vectors want an index: the active one first, and those that are being written, but not one whose
    vectors are being deleted."""
    if settings.vector_index == "off":
        return []
    rows = connection.execute(
        text("""
            SELECT name, dimensions, active FROM embedding_models
            WHERE dimensions <= :most AND (active OR name IN (
                SELECT followed_by FROM embedding_models WHERE active UNION ALL
                SELECT model FROM (SELECT model FROM message_embeddings ORDER BY id DESC LIMIT :newest) AS newest))
                AND name NOT IN (SELECT model FROM reembedding WHERE state = 'dropping')
            ORDER BY active DESC, name
        """),
        {"most": MAX_DIMENSIONS, "newest": NEWEST},
    )
    return [Model(*row) for row in rows]


def situation(connection: Connection, model: Model, limits: Limits) -> Situation:
    """How the index of a model stands. Cheap: the open part is counted up to three times its sealing size, and above
    that its size is taken from its ids."""
    rows = connection.execute(
        text("""
            SELECT id, from_id, to_id, built_rows, live_rows, build_seconds,
                extract(epoch FROM clock_timestamp() - changed_at)::double precision
            FROM vector_index_parts WHERE model = :model AND state = 'ready' ORDER BY from_id
        """),
        {"model": model.name},
    )
    parts = [Part(*row) for row in rows]
    start = parts[-1].to_id if parts else 1
    most = 3 * limits.seal_rows
    # OFFSET 0: the planner counts the newest ones by their ids, whatever it knows of the models.
    own, span, newest = connection.execute(
        text("""
            SELECT count(*) FILTER (WHERE model = :model), count(*), coalesce(max(id), :from - 1)
            FROM (SELECT id, model FROM message_embeddings WHERE id >= :from ORDER BY id DESC LIMIT :most OFFSET 0) AS e
        """),
        {"model": model.name, "from": start, "most": most},
    ).one()
    if span >= most:
        ids = newest + 1 - start
        own, span = own * ids // span, ids
    return Situation(parts, own, span, newest + 1, model.active)


def is_building(connection: Connection) -> bool:
    """Whether somebody holds the builder's lock in this database."""
    return bool(
        connection.execute(
            text("""
                SELECT EXISTS (
                    SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
                        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND classid = :high ::bigint::oid AND objid = :low ::bigint::oid AND objsubid = 1)
            """),
            {"high": BUILDER_LOCK >> 32, "low": BUILDER_LOCK & 0xFFFFFFFF},
        ).scalar_one()
    )


def under_way(connection: Connection) -> tuple[Model, Range, float] | None:
    """The build that the catalogue shows: its model, range, and seconds since it began."""
    row = connection.execute(
        text("""
            SELECT p.model, coalesce(m.dimensions, 0), coalesce(m.active, FALSE), p.from_id, p.to_id, p.live_rows,
                extract(epoch FROM clock_timestamp() - p.started_at)::double precision
            FROM vector_index_parts p LEFT JOIN embedding_models m ON m.name = p.model
            WHERE p.state = 'building' ORDER BY p.id DESC LIMIT 1
        """)
    ).one_or_none()
    return (Model(row[0], row[1], row[2]), Range(row[3], row[4], row[5]), row[6]) if row else None


def disorder(connection: Connection) -> bool:
    """Whether the builder has something to put in order: what another one left behind, indexes whose time is over,
    parts whose index is gone, counts that are old."""
    return bool(
        connection.execute(
            text("""
                SELECT EXISTS (
                    SELECT FROM vector_index_parts p LEFT JOIN embedding_models m ON m.name = p.model
                    WHERE p.state = 'building'
                        OR p.state = 'retired' AND p.changed_at < clock_timestamp() - make_interval(secs => :retired)
                        OR p.state = 'ready' AND (p.counted_at < clock_timestamp() - make_interval(secs => :counted)
                            OR p.live_rows = 0 AND m.active IS NOT TRUE
                            OR NOT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                                           WHERE c.relname = :name || p.id AND i.indisvalid)))
            """),
            {"retired": RETIRE_SECONDS, "counted": COUNT_SECONDS, "name": NAME},
        ).scalar_one()
    )


def has_parts(connection: Connection) -> bool:
    return bool(
        connection.execute(text("SELECT EXISTS (SELECT FROM vector_index_parts WHERE state = 'ready')")).scalar_one()
    )


def last_id(connection: Connection) -> int:
    """The highest id of a vector, 0 where there is none: what it gains a second is the rate."""
    return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM message_embeddings")).scalar_one())


def status(connection: Connection, settings: Settings) -> dict[str, Any]:
    """What GET /status says of the index of the active model; api.schemas.Index describes the fields."""
    found = next((model for model in models(connection, settings) if model.active), None)
    if found is None:
        vectors = connection.execute(text("SELECT count(*) FROM message_embeddings")).scalar_one()
        return {"kind": "exact", "vectors": vectors, "indexed": 0, "open": vectors, "unindexed": 0} | {
            "settled": True,
            "parts": [],
            "building": None,
        }
    limits = Limits.of(settings, found.dimensions)
    now = situation(connection, found, limits)
    # Counted now, or the sum would lag behind what has been deleted.
    open_rows = count(connection, found.name, now.open_from, now.next_id)
    indexed = sum(part.live_rows for part in now.parts)
    building = building_now(connection, found.name)
    settled = building is None and index_plan.is_settled(now, limits)
    return {
        "kind": "hnsw" if now.parts else "exact",
        "vectors": indexed + open_rows,
        "indexed": indexed,
        "open": open_rows,
        "unindexed": 0 if settled else open_rows,
        "settled": settled,
        "parts": [{"id": part.id, "rows": part.live_rows, "state": "ready"} for part in now.parts],
        "building": building,
    }


def building_now(connection: Connection, model: str) -> dict[str, Any] | None:
    row = connection.execute(
        text("""
            SELECT p.id, p.live_rows, b.phase, b.done,
                extract(epoch FROM clock_timestamp() - p.started_at)::double precision
            FROM vector_index_parts p LEFT JOIN vector_index_progress() b ON b.index_name = :name || p.id
            WHERE p.state = 'building' AND p.model = :model ORDER BY p.id DESC LIMIT 1
        """),
        {"model": model, "name": NAME},
    ).one_or_none()
    if row is None:
        return None
    part, rows, phase, done, seconds = row
    return {
        "id": part,
        "rows": rows,
        "phase": phase,  # none: between two statements, or its builder has died
        "progress": round(min(1.0, (done or 0) / rows), 3) if rows else 0.0,
        "seconds": round(seconds, 1),
    }


def catalogue(connection: Connection) -> list[tuple[Part, str, str]]:
    """All parts, whatever their state: (part, model, state)."""
    rows = connection.execute(
        text("""
            SELECT id, from_id, to_id, built_rows, live_rows, build_seconds,
                extract(epoch FROM clock_timestamp() - changed_at)::double precision, model, state
            FROM vector_index_parts ORDER BY id
        """)
    )
    return [(Part(*row[:7]), row[7], row[8]) for row in rows]


def index_is_valid(connection: Connection, part: int) -> bool:
    return bool(
        connection.execute(
            text("""
                SELECT EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                               WHERE c.relname = :name AND i.indisvalid AND i.indisready)
            """),
            {"name": f"{NAME}{part}"},
        ).scalar_one()
    )


def count(connection: Connection, model: str, from_id: int, to_id: int) -> int:
    return int(
        connection.execute(
            text("SELECT count(*) FROM message_embeddings WHERE id >= :from AND id < :to AND model = :model"),
            {"from": from_id, "to": to_id, "model": model},
        ).scalar_one()
    )
