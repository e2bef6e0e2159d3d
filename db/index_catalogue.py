"""The catalogue of the vector index, read: which models have parts, what is built, what is in disorder, and the status.

Parts are made and dropped in db.vector_index.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text

from db import index_plan
from db.index_plan import Limits, Part, Range, Situation
from db.sql import ACTIVE
from settings import Settings

BUILDER_LOCK = 7_263_511_902
NAME = "message_embeddings_part_"
# pgvector indexes halfvec of up to this many dimensions; vectors of more are always scanned exactly.
MAX_DIMENSIONS = 4_000
# A search asks right after it has read the catalogue, so none misses an index that is dropped this long after.
RETIRE_SECONDS = 5.0
# Counting reads each vector, 9 GB for ten million. It is done once a minute, and for at most a hundredth of the time.
COUNT_SECONDS = 60.0
COUNT_SHARE = 100
# A model that has one of this many newest vectors is being written.
NEWEST = 200


@dataclass(frozen=True)
class Model:
    """A model whose vectors want an index. None of them has an id below `first_id`."""

    name: str
    dimensions: int
    active: bool
    first_id: int = 1


@dataclass(frozen=True)
class Entry:
    """A row of the catalogue, and what is in disorder about it. `wanted`: its model is the active one, or the one that
    is coming. `counted_seconds` since its rows were counted, and `counting_seconds` to count those of all parts."""

    part: Part
    model: str
    state: str
    has_index: bool
    wanted: bool
    counted_seconds: float
    counting_seconds: float

    @property
    def is_built(self) -> bool:
        """Whether the index was built, and only its builder died."""
        return self.state == "building" and self.has_index

    @property
    def is_over(self) -> bool:
        """Whether its build came to nothing, or no search asks for it any more."""
        if self.state == "retired":
            return self.part.age_seconds >= RETIRE_SECONDS
        return self.state == "building" and not self.has_index

    @property
    def is_lost(self) -> bool:
        """Whether its index was dropped by somebody, or is damaged."""
        return self.state == "ready" and not self.has_index

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to find in it, now or later. The set of a model that is coming is not whole yet."""
        return self.state == "ready" and not self.part.live_rows and not self.wanted

    @property
    def is_counted(self) -> bool:
        return self.state != "ready" or self.counted_seconds < max(COUNT_SECONDS, COUNT_SHARE * self.counting_seconds)


def models(connection: Connection, settings: Settings) -> list[Model]:
    """The models whose vectors want an index: the active one first, and those that are being written, but not one whose
    vectors are being deleted."""
    if settings.vector_index == "off":
        return []
    rows = connection.execute(
        text("""
            SELECT name, dimensions, active, first_id FROM embedding_models
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
    """How the index of a model stands. Cheap: vectors without an index are counted up to three times the sealing size,
    and above that estimated from their ids. A part whose index is lost does not count: its range is a gap, or open."""
    parts = [
        entry.part
        for entry in catalogue(connection)
        if (entry.model, entry.state) == (model.name, "ready") and entry.has_index
    ]
    parts.sort(key=lambda part: part.from_id)
    start = parts[-1].to_id if parts else 1
    most = 3 * limits.seal_rows
    own, span, next_id = size(connection, model, start, None, most)
    gaps = [
        Range(from_id, to_id, size(connection, model, from_id, to_id, most)[0])
        for from_id, to_id in index_plan.holes(parts)
    ]
    # Without an index, a search of the active model has to pass other models' vectors, too.
    gaps = [gap for gap in gaps if gap.rows or model.active]
    return Situation(parts, own, span, next_id, model.active, model.first_id, gaps)


def size(connection: Connection, model: Model, from_id: int, to_id: int | None, most: int) -> tuple[int, int, int]:
    """The vectors of a model in a range of ids, those of any model there, and the id after the last. Above `most` the
    numbers are estimated from the ids, as if the model's own were as dense everywhere as the newest, from its first id.

    The inner query has one bound only and reads from the newest id down. With both bounds PostgreSQL estimates 0.5 % of
    a never analysed table and chooses to read and sort all of it: half a second in a burst, instead of 30 ms.
    """
    begin = max(from_id, model.first_id)
    end, values = "id >= :from", {"most": most}
    if to_id is not None:  # which has no more vectors than ids
        end, values = "id < :to", {"most": min(most, to_id - from_id), "to": to_id}
    # OFFSET 0: the planner counts the newest ones by their ids, whatever it knows of the models.
    own, near, span, newest = connection.execute(
        text(f"""
            SELECT count(*) FILTER (WHERE model = :model), count(*) FILTER (WHERE id >= :begin), count(*),
                coalesce(max(id), :from - 1)
            FROM (SELECT id, model FROM message_embeddings WHERE {end} ORDER BY id DESC LIMIT :most OFFSET 0) AS e
            WHERE id >= :from
        """),
        {"model": model.name, "begin": begin, "from": from_id} | values,
    ).one()
    if near >= most:
        own = own * (newest + 1 - begin) // near
    if span >= most:
        span = newest + 1 - from_id
    return own, span, newest + 1


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


def others_build(connection: Connection) -> bool:
    """Whether somebody else, such as a REINDEX CONCURRENTLY typed by hand, works at an index of these tables.

    He waits for all who are older than the end of his work, so who waits for his table meanwhile is waited for in turn,
    and PostgreSQL ends one of the two. It is told by the lock, which anybody may see, and by the index
    that is not valid yet: a VACUUM or ANALYZE has the lock as well. Autovacuum, which has no user, gives way by itself.
    """
    return bool(
        connection.execute(
            text("""
                SELECT EXISTS (
                    SELECT FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                    WHERE l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock'
                        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                        AND l.relation IN ('text_messages'::regclass, 'message_embeddings'::regclass)
                        AND l.pid <> pg_backend_pid() AND a.usesysid IS NOT NULL
                        AND EXISTS (SELECT FROM pg_index i WHERE i.indrelid = l.relation AND NOT i.indisvalid))
            """)
        ).scalar_one()
    )


def under_way(connection: Connection) -> tuple[Model, Range, float] | None:
    """The build that the catalogue shows: its model, range, and seconds since it began."""
    row = connection.execute(
        text("""
            SELECT p.model, coalesce(m.dimensions, 0), coalesce(m.active, FALSE), coalesce(m.first_id, 1),
                p.from_id, p.to_id, p.live_rows,
                extract(epoch FROM clock_timestamp() - p.started_at)::double precision
            FROM vector_index_parts p LEFT JOIN embedding_models m ON m.name = p.model
            WHERE p.state = 'building' ORDER BY p.id DESC LIMIT 1
        """)
    ).one_or_none()
    return (Model(*row[:4]), Range(*row[4:7]), row[7]) if row else None


def disorder(connection: Connection) -> bool:
    """Whether the builder has something to put in order: what another builder left behind, indexes whose time is over,
    parts whose index is gone, counts that are old."""
    return any(
        entry.is_built or entry.is_over or entry.is_lost or entry.is_empty or not entry.is_counted
        for entry in catalogue(connection)
    )


def has_parts(connection: Connection) -> bool:
    return bool(
        connection.execute(text("SELECT EXISTS (SELECT FROM vector_index_parts WHERE state = 'ready')")).scalar_one()
    )


def last_id(connection: Connection) -> int:
    """The highest id of a vector, 0 if there is none; its growth per second is the rate."""
    return int(connection.execute(text("SELECT coalesce(max(id), 0) FROM message_embeddings")).scalar_one())


def status(connection: Connection, settings: Settings) -> dict[str, Any]:
    """What GET /status says of the index of the active model; api.schemas.Index describes the fields."""
    found = next((model for model in models(connection, settings) if model.active), None)
    if found is None:
        vectors = connection.execute(
            text(f"SELECT count(*) FROM message_embeddings WHERE model = {ACTIVE}")
        ).scalar_one()
        return {"kind": "exact", "vectors": vectors, "indexed": 0, "open": vectors, "unindexed": 0} | {
            "settled": True,
            "parts": [],
            "building": None,
        }
    limits = Limits.of(settings, found.dimensions)
    now = situation(connection, found, limits)
    # Counted now, or the sum would lag behind what has been deleted.
    without = [(now.open_from, now.next_id), *((gap.from_id, gap.to_id) for gap in now.gaps)]
    open_rows = sum(count(connection, found.name, from_id, to_id) for from_id, to_id in without)
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


def catalogue(connection: Connection) -> list[Entry]:
    """All parts, whatever their state. A time ahead of PostgreSQL's clock, which was set back since, is so long ago."""
    rows = connection.execute(
        text("""
            SELECT id, from_id, to_id, built_rows, live_rows, build_seconds,
                abs(extract(epoch FROM clock_timestamp() - changed_at))::double precision, p.model, p.state,
                EXISTS (SELECT FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
                        WHERE c.relname = :name || p.id AND i.indisvalid AND i.indisready),
                EXISTS (SELECT FROM embedding_models m WHERE m.active AND p.model IN (m.name, m.followed_by)),
                abs(extract(epoch FROM clock_timestamp() - counted_at))::double precision,
                coalesce(sum(p.count_seconds) FILTER (WHERE p.state = 'ready') OVER (), 0)
            FROM vector_index_parts p ORDER BY id
        """),
        {"name": NAME},
    )
    return [Entry(Part(*row[:7]), *row[7:]) for row in rows]


def count(connection: Connection, model: str, from_id: int, to_id: int) -> int:
    return int(
        connection.execute(
            text("SELECT count(*) FROM message_embeddings WHERE id >= :from AND id < :to AND model = :model"),
            {"from": from_id, "to": to_id, "model": model},
        ).scalar_one()
    )
