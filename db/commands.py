"""Everything that writes: messages, deletions, dead letters, embedding jobs and vectors. Reads for people are in
queries.

Each function runs in the caller's transaction and never commits. The triggers of migration 0001 do the rest: whoever
changes a message, its vectors go and a job is queued, in that same transaction.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import psycopg2
from numpy.typing import NDArray
from psycopg2 import errorcodes
from sqlalchemy import Connection, text
from sqlalchemy.exc import OperationalError

from db.copy import vector_rows
from records import DeadLetter, Record

# Readers of a version compare the tuple; timestamps outside of these years cannot be shown as a date.
FIRST_MS = -62_135_596_800_000  # 0001-01-01
LAST_MS = 253_402_300_799_000  # 9999-12-31

# One key for the whole database: writers of texts share it, a writer of tombstones holds it alone (see `persist`).
TOMBSTONE_LOCK = 7_263_511_900

# How long a batch waits for a row that somebody else's transaction holds.
ROW_LOCK_MS = 1_000


class LeaseLost(Exception):
    """Somebody else has taken the work over; what was done with the lease must not be written."""


class RowsLocked(Exception):
    """Somebody else's open transaction holds one of the rows; the others can be stored without it."""


class ModelSwitched(Exception):
    """Another model has become the active one; vectors of this one are not wanted any more."""


class Stored(NamedTuple):
    """What `persist` did: the jobs that its rows were queued in, and the ids whose row it wrote."""

    jobs: list[int]
    ids: set[str]


@dataclass(frozen=True)
class Job:
    """A claimed row of the outbox: it is ours until its lease has run out."""

    id: int
    message_ids: list[str]
    deleted: bool
    attempts: int


class Left(NamedTuple):
    """Messages of claimed jobs that could not be tried yet, and after how many seconds they may be."""

    message_ids: frozenset[str]
    seconds: float


@dataclass(frozen=True)
class Vectors:
    """Vectors of n passages: n message ids (16 bytes each), content hashes (16 bytes), passage numbers and character
    spans, and the (n, dimensions) float array."""

    message_ids: Sequence[bytes]
    content_hashes: Sequence[bytes]
    numbers: Sequence[int]
    spans: Sequence[tuple[int, int]]
    embeddings: NDArray[np.float32]

    def only(self, keep: Sequence[int]) -> "Vectors":
        return Vectors(
            [self.message_ids[i] for i in keep],
            [self.content_hashes[i] for i in keep],
            [self.numbers[i] for i in keep],
            [self.spans[i] for i in keep],
            self.embeddings[list(keep)],
        )


def no_vectors() -> Vectors:
    return Vectors([], [], [], [], np.empty((0, 0), dtype=np.float32))


LATER = """(t.version_timestamp, t.version_partition, t.version_offset)
        < (excluded.version_timestamp, excluded.version_partition, excluded.version_offset)"""

UPSERT = text(f"""
    INSERT INTO text_messages AS t
        (id, source_id, message, metadata, created_at, version_timestamp, version_partition, version_offset)
    SELECT r.id, r.source_id, r.message, r.metadata::jsonb, to_timestamp(r.created_ms / 1000.0),
        r.version_timestamp, r.version_partition, r.version_offset
    FROM unnest(:ids ::uuid[], :source_ids ::text[], :messages ::text[], :metadata ::text[], :created ::bigint[],
                :timestamps ::bigint[], :partitions ::int[], :offsets ::bigint[])
        AS r (id, source_id, message, metadata, created_ms, version_timestamp, version_partition, version_offset)
    WHERE NOT EXISTS (
        SELECT FROM deleted_messages d
        WHERE d.id = r.id AND (d.version_timestamp, d.version_partition, d.version_offset)
            >= (r.version_timestamp, r.version_partition, r.version_offset))
    ORDER BY r.id  -- every writer locks in this order, so none waits in a circle
    ON CONFLICT (id) DO UPDATE SET
        source_id = coalesce(excluded.source_id, t.source_id),
        message = excluded.message,
        metadata = excluded.metadata,
        processed_at = CASE WHEN t.message = excluded.message THEN t.processed_at ELSE CURRENT_TIMESTAMP END,
        version_timestamp = excluded.version_timestamp,
        version_partition = excluded.version_partition,
        version_offset = excluded.version_offset
    WHERE {LATER}
    RETURNING id::text
""")

# A deletion by psql that was under way when UPSERT looked: its row was waited for, and is now to be respected.
UNDO_DELETED = text("""
    DELETE FROM text_messages t USING deleted_messages d
    WHERE t.id = ANY (:ids ::uuid[]) AND d.id = t.id
        AND (d.version_timestamp, d.version_partition, d.version_offset)
            >= (t.version_timestamp, t.version_partition, t.version_offset)
    RETURNING t.id::text
""")

REMEMBER_DELETIONS = text("""
    INSERT INTO deleted_messages AS t (id, version_timestamp, version_partition, version_offset)
    SELECT * FROM unnest(:ids ::uuid[], :timestamps ::bigint[], :partitions ::int[], :offsets ::bigint[]) AS r (id)
    ON CONFLICT (id) DO UPDATE SET
        version_timestamp = excluded.version_timestamp,
        version_partition = excluded.version_partition,
        version_offset = excluded.version_offset,
        deleted_at = excluded.deleted_at
    WHERE (t.version_timestamp, t.version_partition, t.version_offset)
        < (excluded.version_timestamp, excluded.version_partition, excluded.version_offset)
""")

DELETE_OLDER = text("""
    DELETE FROM text_messages t
    USING unnest(:ids ::uuid[], :timestamps ::bigint[], :partitions ::int[], :offsets ::bigint[])
        AS r (id, version_timestamp, version_partition, version_offset)
    WHERE t.id = r.id AND (t.version_timestamp, t.version_partition, t.version_offset)
        < (r.version_timestamp, r.version_partition, r.version_offset)  -- equal: typed by hand after that deletion
""")


def latest(records: Iterable[Record]) -> tuple[list[tuple[Record, int]], list[Record]]:
    """The texts (with the ms at which each was created) and the tombstones that count, of each kind one a message id.

    A tombstone counts also where a later text follows: that one is a new message, with a time of creation of its own.
    """
    texts: dict[str, list[Record]] = {}
    tombstones: dict[str, Record] = {}
    for record in records:
        if record.message is not None:
            texts.setdefault(record.id, []).append(record)
        elif record.id not in tombstones or tombstones[record.id].version < record.version:
            tombstones[record.id] = record
    winners = []
    for message_id, found in texts.items():
        deleted = tombstones.get(message_id)
        if deleted is None and len(found) == 1:
            winners.append((found[0], found[0].timestamp))
            continue
        alive = [record for record in found if deleted is None or record.version > deleted.version]
        if alive:
            alive.sort(key=lambda record: record.version)
            source_id = next((record.source_id for record in reversed(alive) if record.source_id), None)
            winners.append((alive[-1]._replace(source_id=source_id), min(record.timestamp for record in alive)))
    return winners, list(tombstones.values())


def persist(
    connection: Connection,
    records: Sequence[Record],
    *,
    reserved_seconds: float | None = None,
    row_lock_ms: int = ROW_LOCK_MS,
) -> Stored:
    """Stores texts and tombstones so that for each id the latest version wins, whatever came first. Idempotent.

    `reserved_seconds` keeps the sweep off the new jobs for so long, because the caller hands them on itself; None
    leaves them to the sweep. Raises RowsLocked when somebody holds one of the rows for longer than `row_lock_ms`, and
    what else the database says: a DataError is the fault of one of the records.
    """
    try:
        return store(connection, records, reserved_seconds, row_lock_ms)
    except OperationalError as error:
        waited_for_row = "advisory" not in (error.statement or "")
        if waited_for_row and getattr(error.orig, "pgcode", None) == errorcodes.LOCK_NOT_AVAILABLE:
            raise RowsLocked(str(error.orig).strip()) from error
        raise


def store(
    connection: Connection, records: Sequence[Record], reserved_seconds: float | None, row_lock_ms: int
) -> Stored:
    texts, tombstones = latest(records)
    # Without the lock a text and its tombstone, both uncommitted, would not see each other, and both would stay.
    lock = "pg_advisory_xact_lock" if tombstones else "pg_advisory_xact_lock_shared"
    connection.execute(
        text(f"""SELECT {lock}(:key), set_config('text_pipeline.jobs', :collect, true),
                        set_config('text_pipeline.reserved_seconds', :seconds, true),
                        set_config('lock_timeout', :row_lock_ms, true)"""),
        {
            "key": TOMBSTONE_LOCK,
            "row_lock_ms": str(row_lock_ms),
            "collect": "" if reserved_seconds is None else "+",
            "seconds": str(reserved_seconds or 0),
        },
    )
    if tombstones:
        arrays = versions(tombstones)
        # The rows first, as somebody's DELETE does, or the two would wait for each other.
        connection.execute(
            text("SELECT FROM text_messages WHERE id = ANY (:ids ::uuid[]) ORDER BY id FOR UPDATE"),
            {"ids": arrays["ids"]},
        )
        connection.execute(REMEMBER_DELETIONS, arrays)
        connection.execute(DELETE_OLDER, arrays)
    written: set[str] = set()
    if texts:
        winners = [record for record, _ in texts]
        rows = connection.execute(
            UPSERT,
            {
                **versions(winners),
                "source_ids": [record.source_id for record in winners],
                "messages": [record.message for record in winners],
                "metadata": [record.metadata for record in winners],
                "created": [min(max(created, FIRST_MS), LAST_MS) for _, created in texts],
            },
        )
        written = set(rows.scalars())
        if written:
            written -= set(connection.execute(UNDO_DELETED, {"ids": array(written)}).scalars())
    replayed = [record.replayed for record in records if record.replayed is not None]
    if replayed:
        set_dead_letter_state(connection, replayed, "replayed")
    jobs: list[int] = []
    if written and reserved_seconds is not None:
        collected = connection.execute(text("SELECT current_setting('text_pipeline.jobs')")).scalar_one()
        jobs = [int(job) for job in collected.split(",")[1:]]
    return Stored(jobs, written)


def array(values: Iterable[object]) -> str:
    """A PostgreSQL array literal of values that need no quoting (uuids and numbers)."""
    return "{" + ",".join(map(str, values)) + "}"


def versions(records: Sequence[Record]) -> dict[str, object]:
    return {
        "ids": array(record.id for record in records),
        "timestamps": array(record.timestamp for record in records),
        "partitions": array(record.partition for record in records),
        "offsets": array(record.offset for record in records),
    }


def set_dead_letter_state(connection: Connection, keys: Iterable[tuple[str, int, int]], state: str) -> int:
    """Marks open dead letters, by (topic, partition, offset), as replayed or dropped; returns how many were open."""
    changed = 0
    for topic, partition, offset in keys:
        changed += connection.execute(
            text("""
                UPDATE dead_letters SET state = :state, state_changed_at = clock_timestamp()
                WHERE topic = :topic AND partition = :partition AND "offset" = :offset AND state = 'open'
            """),
            {"state": state, "topic": topic, "partition": partition, "offset": offset},
        ).rowcount
    return changed


def record_dead_letters(connection: Connection, letters: Sequence[DeadLetter]) -> None:
    """Notes dead letters, each once for its coordinates; one whose replay has failed is open again. Idempotent.

    A later timestamp at the same coordinates is another record: the topic was made again.
    """
    statement = text("""
        INSERT INTO dead_letters AS t
            (topic, partition, "offset", timestamp, reason, detail, key, value, value_bytes, headers)
        VALUES (:topic, :partition, :offset, :timestamp, :reason, :detail, decode(:key, 'base64'),
            decode(:value, 'base64'), :value_bytes, :headers ::jsonb)
        ON CONFLICT (topic, partition, "offset") DO UPDATE SET
            timestamp = excluded.timestamp, reason = excluded.reason, detail = excluded.detail, key = excluded.key,
            value = excluded.value, value_bytes = excluded.value_bytes, headers = excluded.headers, state = 'open',
            state_changed_at = clock_timestamp()
        WHERE (:again AND t.state = 'replayed') OR excluded.timestamp > t.timestamp
    """)
    for letter in sorted(letters, key=lambda letter: letter[:3]):
        connection.execute(statement, letter._asdict() | {"headers": json.dumps(letter.headers)})


def claim_jobs(
    connection: Connection, jobs: Sequence[int], lease: str, seconds: float, *, counts: bool = True
) -> list[Job]:
    """Takes those of the jobs that nobody else holds, for `seconds`; claiming again with the same lease extends it.

    Without `counts` it is no new attempt, whoever held the lease meanwhile: the last one ended in an outage.
    """
    # A lease need not survive a crash of the server: the job is then simply free again.
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    rows = connection.execute(
        text("""
            UPDATE embedding_jobs SET lease = :lease ::uuid,
                attempts = attempts + (:counts AND lease IS DISTINCT FROM :lease ::uuid)::int,
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            WHERE id IN (
                SELECT id FROM embedding_jobs
                WHERE id = ANY (:jobs ::bigint[])
                    AND (lease IS NULL OR lease = :lease ::uuid OR available_at <= clock_timestamp()
                        OR available_at > clock_timestamp() + INTERVAL '1 hour')
                FOR UPDATE SKIP LOCKED)
            RETURNING id, message_ids::text[], deleted, attempts
        """),
        {"jobs": array(jobs), "lease": lease, "seconds": seconds, "counts": counts},
    )
    return [Job(*row) for row in rows]


def release_jobs(connection: Connection, jobs: Sequence[int], lease: str, *, seconds: float, refund: bool) -> None:
    """Gives jobs back, to be taken from `seconds` on; with `refund` the attempt does not count, for it was an
    outage."""
    connection.execute(
        text("""
            UPDATE embedding_jobs SET lease = NULL, attempts = attempts - :refund,
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            WHERE id = ANY (:jobs ::bigint[]) AND lease = :lease ::uuid
        """),
        {"jobs": array(jobs), "lease": lease, "seconds": seconds, "refund": int(refund)},
    )


def split_job(connection: Connection, job: Job, lease: str) -> None:
    """Replaces a job by two of half its messages each, so that the one that cannot pass ends up alone."""
    middle = len(job.message_ids) // 2
    for half in (job.message_ids[:middle], job.message_ids[middle:]):
        connection.execute(
            text("""
                INSERT INTO embedding_jobs (message_ids, deleted, created_at)
                SELECT :half ::uuid[], deleted, created_at FROM embedding_jobs WHERE id = :id AND lease = :lease ::uuid
            """),
            {"half": half, "id": job.id, "lease": lease},
        )
    connection.execute(
        text("DELETE FROM embedding_jobs WHERE id = :id AND lease = :lease ::uuid"), {"id": job.id, "lease": lease}
    )


def take_waiting_jobs(connection: Connection, *, messages: int, seconds: float, small: int) -> list[tuple[int, int]]:
    """Reserves jobs that wait for somebody, for `seconds`: (job id, number of its messages) pairs with at most about
    `messages` messages together. Jobs of at most `small` messages come first, then the oldest."""
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    rows = connection.execute(
        text("""
            WITH waiting AS (
                SELECT id, cardinality(message_ids) AS size FROM embedding_jobs
                WHERE available_at <= clock_timestamp()
                    -- No lease is so long: the server's clock was set back.
                    OR available_at > clock_timestamp() + INTERVAL '1 hour'
                ORDER BY cardinality(message_ids) > :small, id LIMIT :messages FOR UPDATE SKIP LOCKED
            ), chosen AS (
                SELECT id FROM (SELECT id, sum(size) OVER (ORDER BY size > :small, id) - size AS before FROM waiting)
                    AS running
                WHERE before < :messages
            )
            UPDATE embedding_jobs j SET lease = NULL,
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            FROM chosen WHERE j.id = chosen.id
            RETURNING j.id, cardinality(j.message_ids)
        """),
        {"messages": messages, "seconds": seconds, "small": small},
    )
    return sorted((row[0], row[1]) for row in rows)


def store_embeddings(
    connection: Connection,
    jobs: Sequence[Job],
    lease: str,
    model: str,
    vectors: Vectors,
    failures: Sequence[tuple[str, str, str]] = (),
    *,
    left: Left | None = None,
) -> None:
    """Finishes jobs: vectors whose message still has the text they were made of replace the older ones; the rest is let
    go. `failures` are (message id, content hash, reason); `left` are messages that stay queued, as not yet tried.

    A job that somebody else has taken over is left to them, with its messages. Raises LeaseLost when all were, and
    psycopg2's UniqueViolation when another worker writes vectors of the same message at this moment: do it again in a
    new transaction.
    """
    # A crash of the server takes the vectors back together with the end of their jobs: it may be waited for less.
    connection.execute(text("SET LOCAL synchronous_commit = off"))
    left = left or Left(frozenset(), 0.0)
    kept = finish_jobs(connection, jobs, lease, left)
    if not kept and jobs:
        raise LeaseLost
    if left.message_ids or len(kept) != len(jobs):
        ours = {message_id for job in kept for message_id in job.message_ids} - left.message_ids
        vectors = vectors.only(
            [place for place, found in enumerate(vectors.message_ids) if str(uuid.UUID(bytes=found)) in ours]
        )
        failures = [failure for failure in failures if failure[0] in ours]
        jobs = [replace(job, message_ids=[found for found in job.message_ids if found in ours]) for job in kept]
    active = connection.execute(text("SELECT name FROM embedding_models WHERE active FOR SHARE")).scalar_one_or_none()
    if active is None and len(vectors.message_ids):  # the tables were made anew under a running worker
        register_model(connection, model, vectors.embeddings.shape[1])
    elif active not in (None, model):
        raise ModelSwitched(active)
    ids = {message_id for job in jobs for message_id in job.message_ids}
    current = current_hashes(connection, ids, vectors)
    keep = [
        place
        for place, message_id in enumerate(vectors.message_ids)
        if current.get(message_id) == vectors.content_hashes[place]
    ]
    outdated = set(vectors.message_ids) & current.keys()
    if len(keep) != len(vectors.message_ids):
        vectors = vectors.only(keep)
    written = set(vectors.message_ids)
    connection.execute(
        text("DELETE FROM embedding_failures WHERE message_id = ANY (:ids ::uuid[])"), {"ids": array(ids)}
    )
    others = [message_id for message_id in ids if uuid.UUID(message_id).bytes not in written] if written else ids
    if others:
        delete_outdated(connection, model, others, [])
    requeue_outdated(connection, outdated - written)
    if keep:
        # Mostly nothing is there yet, so that is tried first.
        try:
            with connection.begin_nested():
                copy(connection, model, vectors)
        except psycopg2.errors.UniqueViolation:
            replaced = {uuid.UUID(bytes=found) for found in written}
            delete_outdated(connection, model, replaced, replaced)
            copy(connection, model, vectors)
    for message_id, content_hash, reason in failures:
        if current.get(uuid.UUID(message_id).bytes) == uuid.UUID(content_hash).bytes:
            record_failure(connection, message_id, content_hash, model, reason, max(job.attempts for job in jobs))


def current_hashes(connection: Connection, ids: Collection[str], vectors: Vectors) -> dict[bytes, bytes]:
    """The content hash of each message that is there, by id, both of 16 bytes; for messages without a vector it may be
    missing."""
    made = dict(zip(vectors.message_ids, vectors.content_hashes, strict=True))
    if len(made) == len(ids):
        # The common case, in one number: all are still what they were.
        same = connection.execute(
            text("""
                SELECT count(*) FROM unnest(:ids ::uuid[], :hashes ::uuid[]) AS made (id, content_hash)
                JOIN text_messages m ON m.id = made.id AND m.content_hash = made.content_hash
            """),
            {"ids": array(found.hex() for found in made), "hashes": array(found.hex() for found in made.values())},
        ).scalar_one()
        if same == len(made):
            return made
    rows = connection.execute(
        text("SELECT id::text, content_hash::text FROM text_messages WHERE id = ANY (:ids ::uuid[])"),
        {"ids": array(ids)},
    )
    return {uuid.UUID(row[0]).bytes: uuid.UUID(row[1]).bytes for row in rows}


def delete_outdated(connection: Connection, model: str, ids: Iterable[object], replaced: Iterable[object]) -> None:
    """Deletes vectors of these messages that are not of their present text, or whose message is to be replaced.

    A message that was edited meanwhile may have the vector of its new text already: that one stays.
    """
    connection.execute(
        text("""
            DELETE FROM message_embeddings e
            WHERE e.message_id = ANY (:ids ::uuid[]) AND e.model = :model AND (
                e.message_id = ANY (:replaced ::uuid[])
                OR NOT EXISTS (SELECT FROM text_messages m
                               WHERE m.id = e.message_id AND m.content_hash = e.content_hash))
        """),
        {"ids": array(ids), "model": model, "replaced": array(replaced)},
    )


def copy(connection: Connection, model: str, vectors: Vectors) -> None:
    cursor = connection.connection.cursor()
    cursor.copy_expert(
        """COPY message_embeddings
           (message_id, passage_number, passage_start, passage_end, content_hash, model, embedding)
           FROM STDIN WITH (FORMAT binary)""",
        vector_rows(vectors, model),
    )


def finish_jobs(connection: Connection, jobs: Sequence[Job], lease: str, left: Left) -> list[Job]:
    """Removes jobs, but for those of their messages that are left to be done; returns the jobs that were still ours."""
    whole = [job for job in jobs if left.message_ids.isdisjoint(job.message_ids)]
    rows = connection.execute(
        text("DELETE FROM embedding_jobs WHERE id = ANY (:jobs ::bigint[]) AND lease = :lease ::uuid RETURNING id"),
        {"jobs": array(job.id for job in whole), "lease": lease},
    )
    ours = set(rows.scalars())
    for job in jobs:
        if job not in whole:
            found = connection.execute(
                text("""
                    UPDATE embedding_jobs SET message_ids = :left ::uuid[], lease = NULL, attempts = attempts - 1,
                        available_at = clock_timestamp() + make_interval(secs => :seconds)
                    WHERE id = :id AND lease = :lease ::uuid
                """),
                {
                    "left": array(message_id for message_id in job.message_ids if message_id in left.message_ids),
                    "seconds": left.seconds,
                    "id": job.id,
                    "lease": lease,
                },
            )
            if found.rowcount:
                ours.add(job.id)
    return [job for job in jobs if job.id in ours]


def requeue_outdated(connection: Connection, message_ids: Iterable[bytes]) -> None:
    """Queues messages again that were embedded with another text than they have, and have no vector of theirs yet.

    Mostly an edit has queued them already; but the sender of a task may have had the wrong text at hand.
    """
    ids = array(uuid.UUID(bytes=found) for found in message_ids)
    if ids != "{}":
        connection.execute(
            text("""
                SELECT queue_embedding(array_agg(m.id)) FROM text_messages m
                WHERE m.id = ANY (:ids ::uuid[]) AND NOT EXISTS (
                    SELECT FROM message_embeddings e WHERE e.message_id = m.id AND e.content_hash = m.content_hash)
                AND NOT EXISTS (SELECT FROM embedding_jobs j WHERE NOT j.deleted AND m.id = ANY (j.message_ids))
            """),
            {"ids": ids},
        )


def record_failure(
    connection: Connection, message_id: str, content_hash: str, model: str, reason: str, attempts: int
) -> None:
    connection.execute(
        text("""
            INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
            VALUES (:id ::uuid, :hash ::uuid, :model, :reason, :attempts)
            ON CONFLICT (message_id) DO UPDATE SET content_hash = excluded.content_hash, model = excluded.model,
                reason = excluded.reason, attempts = excluded.attempts, failed_at = clock_timestamp()
        """),
        {"id": message_id, "hash": content_hash, "model": model, "reason": reason[:1000], "attempts": attempts},
    )


def retry_failures(connection: Connection) -> int:
    """Queues all messages whose embedding has failed once more; returns how many."""
    return int(
        connection.execute(
            text("""
                WITH gone AS (DELETE FROM embedding_failures RETURNING message_id)
                SELECT count(*), queue_embedding(array_agg(message_id)) FROM gone
            """)
        ).scalar_one()
    )


def register_model(connection: Connection, name: str, dimensions: int) -> str:
    """Makes a model the active one if there is none yet; returns the name of the active one."""
    connection.execute(
        text("""
            INSERT INTO embedding_models (name, dimensions, active)
            SELECT :name, :dimensions, TRUE WHERE NOT EXISTS (SELECT FROM embedding_models WHERE active)
            ON CONFLICT DO NOTHING
        """),
        {"name": name, "dimensions": dimensions},
    )
    return str(connection.execute(text("SELECT name FROM embedding_models WHERE active")).scalar_one())


def switch_model(connection: Connection, name: str, dimensions: int) -> int:
    """Makes another model the active one and queues every message for it; returns how many messages."""
    connection.execute(
        text("UPDATE embedding_models SET active = FALSE WHERE active AND name <> :name"), {"name": name}
    )
    connection.execute(
        text("""
            INSERT INTO embedding_models (name, dimensions, active) VALUES (:name, :dimensions, TRUE)
            ON CONFLICT (name) DO UPDATE SET active = TRUE
        """),
        {"name": name, "dimensions": dimensions},
    )
    connection.execute(text("DELETE FROM message_embeddings WHERE model <> :name"), {"name": name})
    connection.execute(text("DELETE FROM embedding_failures"))
    return int(
        connection.execute(text("SELECT count(*), queue_embedding(array_agg(id)) FROM text_messages")).scalar_one()
    )


def forget_old_deletions(connection: Connection, retention_ms: int) -> int:
    """Drops remembered deletions that are older than anything the log can hold; returns how many.

    Kafka removes whole segments, so a record may outlive its retention by the time a segment takes: 7 days by default.
    """
    return connection.execute(
        text("""
            DELETE FROM deleted_messages
            WHERE deleted_at < clock_timestamp() - make_interval(secs => :seconds) - INTERVAL '8 days'
        """),
        {"seconds": retention_ms / 1000},
    ).rowcount
