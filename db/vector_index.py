"""The vector index behind the writer: the one builder that seals, merges and drops its parts.

What to do is decided in db.index_plan; how a search uses the parts stands in db.vector_search. Writers insert into the
open part, which no index covers, so they never wait for a graph. A vector whose id lies in a part all the same (its
transaction ended late) is inserted into that part's index by PostgreSQL.

The catalogue can only make a search slower, never wrong: a search asks for the ranges of the parts that are ready and
for everything else, and PostgreSQL answers a range without an index by an exact scan.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from psycopg2 import errorcodes
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from db import index_plan, session, text_index
from db.index_catalogue import (
    BUILDER_LOCK,
    NAME,
    Model,
    catalogue,
    count,
    disorder,
    has_parts,
    models,
    others_build,
    situation,
    under_way,
)
from db.index_plan import Limits, Range
from settings import Settings

log = logging.getLogger(__name__)


def break_off(connection: Connection) -> None:
    """Ends the statement of the builder, who then forgets the part that it was at."""
    connection.execute(
        text("""
            SELECT pg_cancel_backend(pid) FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid
            WHERE p.datname = current_database() AND starts_with(c.relname, :name)
        """),
        {"name": NAME},
    )


def is_due(connection: Connection, settings: Settings, rate: float, quiet_seconds: float) -> bool:
    """Whether a builder has work. `rate` is how many vectors a second come in, `quiet_seconds` since when few did."""
    return (
        disorder(connection)
        or (settings.vector_index == "off" and has_parts(connection))
        or text_index.is_due(connection, settings)
        or any(
            index_plan.due(situation(connection, model, limits), limits, rate, quiet_seconds) is not None
            for model in models(connection, settings)
            for limits in [Limits.of(settings, model.dimensions)]
        )
    )


def give_way(connection: Connection, settings: Settings, rate: float) -> bool:
    """Breaks off a merge that would take so long that too much piles up behind it; returns whether it did."""
    found = under_way(connection)
    if found is None:
        return False
    model, building, elapsed = found
    limits = Limits.of(settings, model.dimensions)
    if not index_plan.gives_way(situation(connection, model, limits), limits, rate, building, elapsed):
        return False
    break_off(connection)
    return True


def tend(settings: Settings, rate: float, quiet_seconds: float) -> int | None:
    """Does one piece of the work that is due, in a session of its own; returns the id of a part that it has built.

    Returns None if nothing was built, or if another builder is at work, or somebody else at an index.
    """
    with builder(settings) as connection:
        if connection is None or others_build(connection):
            return None
        put_in_order(connection, settings)
        for model in models(connection, settings):
            limits = Limits.of(settings, model.dimensions)
            wanted = index_plan.due(situation(connection, model, limits), limits, rate, quiet_seconds)
            if wanted is not None:
                return build(connection, model, wanted, settings, quiet=rate <= index_plan.QUIET_ROWS_PER_SECOND)
        text_index.tend(connection, settings)
    return None


def take_in_texts(settings: Settings) -> bool:
    """Puts what waits beside the text indexes into them, and does nothing else: `tend` might count every part as well.
    Returns whether it did: if another builder is at work, it is left to a later time."""
    with builder(settings) as connection:
        if connection is not None:
            text_index.take_in(connection)
        return connection is not None


@contextmanager
def builder(settings: Settings) -> Iterator[Connection | None]:
    """A connection that holds the builder's lock, or None if somebody else holds it. One database has one builder.

    Every statement is a transaction of its own, and none has a time limit: CREATE INDEX CONCURRENTLY takes minutes.
    When the process dies the lock lasts for as long as PostgreSQL goes on with the statement.
    """
    engine = session.connect_engine(settings.database_url(), "index builder", timeout_ms=0)
    try:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET lock_timeout = 0"))
            mine = connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": BUILDER_LOCK}).scalar_one()
            yield connection if mine else None
    finally:
        engine.dispose()  # and with the connection goes the lock


def put_in_order(connection: Connection, settings: Settings) -> None:
    """Forgets what nobody needs any more and counts again what was counted long ago. For the builder only."""
    for entry in catalogue(connection):
        part = entry.part
        if entry.is_built:
            finish(connection, part.id, entry.model, Range(part.from_id, part.to_id, 0))
        elif entry.is_over:
            drop(connection, part.id)
        elif entry.is_lost:  # its range is a gap then, or open: what has no index gets one
            log.warning("the index of the vectors %d to %d is gone", part.from_id, part.to_id)
            drop(connection, part.id)
    drop_strays(connection)
    recount(connection)
    if settings.vector_index == "off":
        retire(connection, [entry.part.id for entry in catalogue(connection) if entry.state == "ready"])
    retire(connection, [entry.part.id for entry in catalogue(connection) if entry.is_empty])
    for each in models(connection, settings):
        limits = Limits.of(settings, each.dimensions)
        now = situation(connection, each, limits)
        if index_plan.is_useless(now, limits):
            retire(connection, [part.id for part in now.parts])


def drop_strays(connection: Connection) -> None:
    """Drops the indexes that are named like parts' and belong to none."""
    for name in connection.execute(
        text("""
            SELECT c.relname FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
            WHERE i.indrelid = 'message_embeddings'::regclass AND starts_with(c.relname, :name)
                AND NOT EXISTS (SELECT FROM vector_index_parts p WHERE c.relname = :name || p.id)
        """),
        {"name": NAME},
    ).scalars():
        quoted = connection.dialect.identifier_preparer.quote_identifier(name)  # somebody may have renamed it
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {quoted}")


def recount(connection: Connection) -> None:
    for entry in catalogue(connection):
        if not entry.is_counted:
            live, seconds = counted(connection, entry.model, entry.part.from_id, entry.part.to_id)
            connection.execute(
                text("""
                    UPDATE vector_index_parts SET live_rows = :rows, count_seconds = :seconds,
                        counted_at = clock_timestamp()
                    WHERE id = :id
                """),
                {"rows": live, "seconds": seconds, "id": entry.part.id},
            )


def counted(connection: Connection, model: str, from_id: int, to_id: int) -> tuple[int, float]:
    """The vectors of a model in a range of ids, and the seconds that it took to count them."""
    began = time.monotonic()
    return count(connection, model, from_id, to_id), time.monotonic() - began


def drop(connection: Connection, part: int) -> None:
    connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}{part}")
    connection.execute(text("DELETE FROM vector_index_parts WHERE id = :id"), {"id": part})


RETIRE = "UPDATE vector_index_parts SET state = 'retired', changed_at = clock_timestamp()"


def retire(connection: Connection, parts: Sequence[int]) -> None:
    connection.execute(text(f"{RETIRE} WHERE id = ANY (:ids)"), {"ids": list(parts)})


def retire_all(connection: Connection, model: str) -> None:
    connection.execute(text(f"{RETIRE} WHERE model = :model AND state = 'ready'"), {"model": model})


def build(connection: Connection, model: Model, wanted: Range, settings: Settings, *, quiet: bool) -> int:
    """Builds the index of a range and puts it in the place of the parts that lie in it; returns the part's id.

    Neither reads nor writes wait for it. It takes a second core only while it is `quiet`. If it fails, nothing has
    changed except for an index that is not valid, which `put_in_order` drops.
    """
    part = int(
        connection.execute(
            text("""
                INSERT INTO vector_index_parts (model, from_id, to_id, live_rows) VALUES (:model, :from, :to, :rows)
                RETURNING id
            """),
            {"model": model.name, "from": wanted.from_id, "to": wanted.to_id, "rows": wanted.rows},
        ).scalar_one()
    )
    connection.exec_driver_sql(f"SET maintenance_work_mem = '{settings.index_memory_mb}MB'")
    began = time.monotonic()
    try:
        create_index(connection, part, model, wanted, settings.index_workers if quiet else 0)
    except DBAPIError as error:
        # The graph of a parallel build lies in shared memory, of which a container may have little.
        if getattr(error.orig, "pgcode", None) not in (errorcodes.DISK_FULL, errorcodes.OUT_OF_MEMORY) or not quiet:
            raise
        log.info("no parallel build: %s", str(error.orig).strip())
        connection.exec_driver_sql(f"DROP INDEX CONCURRENTLY IF EXISTS {NAME}{part}")
        create_index(connection, part, model, wanted, 0)
    finish(connection, part, model.name, wanted, time.monotonic() - began)
    return part


def create_index(connection: Connection, part: int, model: Model, wanted: Range, workers: int) -> None:
    connection.exec_driver_sql(f"SET max_parallel_maintenance_workers = {workers}")
    name = "'" + model.name.replace("'", "''") + "'"
    # The ids come first: one comparison shows that a new vector is not in the range.
    statement = f"""
        CREATE INDEX CONCURRENTLY {NAME}{part} ON message_embeddings
        USING hnsw ((embedding::halfvec({model.dimensions})) halfvec_cosine_ops)
        WHERE id < {wanted.to_id} AND id >= {wanted.from_id} AND model = {name}
    """
    connection.exec_driver_sql(statement.replace("%", "%%"))  # psycopg2 reads % as the mark of a value


def finish(connection: Connection, part: int, model: str, wanted: Range, seconds: float = 0.0) -> None:
    """Makes a built part the one that counts, and retires those that it replaces, in one statement."""
    rows, count_seconds = counted(connection, model, wanted.from_id, wanted.to_id)
    connection.execute(
        text("""
            UPDATE vector_index_parts SET
                state = CASE WHEN id = :id THEN 'ready' ELSE 'retired' END,
                built_rows = CASE WHEN id = :id THEN :rows ELSE built_rows END,
                live_rows = CASE WHEN id = :id THEN :rows ELSE live_rows END,
                build_seconds = CASE WHEN id = :id THEN :seconds ELSE build_seconds END,
                count_seconds = CASE WHEN id = :id THEN :count_seconds ELSE count_seconds END,
                changed_at = clock_timestamp(), counted_at = clock_timestamp()
            WHERE id = :id OR (model = :model AND state = 'ready' AND from_id >= :from AND to_id <= :to)
        """),
        {
            "id": part,
            "rows": rows,
            "seconds": seconds,
            "count_seconds": count_seconds,
            "model": model,
            "from": wanted.from_id,
            "to": wanted.to_id,
        },
    )
