"""What writes messages and deletions. Jobs are in outbox, vectors in embeddings, dead letters in dead_letters.

Each function runs in the caller's transaction and never commits. Triggers do the rest: when anybody changes a message,
they delete its vectors and queue a job, in that same transaction. Migration 0001 makes them. Of their functions, the
present text of queue_embedding is in 0007, of forget_embeddings in 0008, of text_messages_updated in 0010, of
text_messages_truncated in 0017, and of all others in 0001; 0012 adds planner settings to forget_embeddings and
text_messages_updated, and 0014 says as whom they run.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import NamedTuple

import psycopg2
from psycopg2 import errorcodes
from sqlalchemy import Connection, Row, text
from sqlalchemy.exc import OperationalError

from db import dead_letters, session
from db.content_hashes import content_hash, stored_hashes
from db.copy import copy_pieces, message_rows
from db.sql import DURABLE, array, each_message
from records import FIRST_MS, LAST_MS, Record

# One key for the whole database: writers of texts share it, a writer of tombstones holds it alone (see `persist`).
TOMBSTONE_LOCK = 7_263_511_900

# From this many messages on COPY is worth its round trip.
COPY_FROM = 16

COPY_MESSAGES = """COPY text_messages (id, source_id, message, metadata, created_at, version_timestamp,
    version_partition, version_offset) FROM STDIN WITH (FORMAT binary)"""

# How long a batch waits for a row that somebody else's transaction holds.
ROW_LOCK_MS = 1_000


class RowsLocked(Exception):
    """Somebody else's open transaction holds one of the rows; the others can be stored without it."""


class NotNew(Exception):
    """The guess that all messages are new was wrong, or one of them cannot be stored: none was stored."""


class Stored(NamedTuple):
    """What `persist` did: the jobs that it queued, the texts of the rows that it wrote, by id, whether all messages
    were new, whether the one job is held by the given lease, which texts were the same before, so that they have no
    job, and of which a trigger of somebody's has stored another text."""

    jobs: list[int]
    texts: dict[str, str]
    all_new: bool
    held: bool = False
    unchanged: frozenset[str] = frozenset()
    rewritten: frozenset[str] = frozenset()

    @property
    def queued(self) -> list[str]:
        """The messages that there are jobs for."""
        return [message_id for message_id in self.texts if message_id not in self.unchanged]


# Compares a row that is there, `t`, with the one that is to take its place.
LATER = """(t.version_timestamp, t.version_partition, t.version_offset)
        < (excluded.version_timestamp, excluded.version_partition, excluded.version_offset)"""

UPSERT = f"""
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
    RETURNING id::text, xmax = 0 AS new, coalesce(processed_at = CURRENT_TIMESTAMP, FALSE) AS changed
"""

# Whether somebody has hung triggers of his own on the table. For a batch that costs less than to be told all hashes.
OTHERS_TRIGGERS = """EXISTS (
    SELECT FROM pg_trigger WHERE tgrelid = 'text_messages'::regclass AND NOT tgisinternal
        AND tgname NOT IN ('text_messages_inserted', 'text_messages_updated', 'text_messages_deleted',
            'text_messages_truncated', 'text_messages_typed'))"""

# How much longer a deletion is remembered than the log can hold a record: Kafka looks for old records every few minutes
# only, and by its own clock.
MARGIN = "INTERVAL '1 day'"

# Whether any message at all was ever deleted. This check is free. Looking a thousand ids up in deleted_messages is not,
# so it comes first.
ANY_DELETED = "EXISTS (SELECT FROM deleted_messages)"
SOME_DELETED = text("SELECT EXISTS (SELECT FROM deleted_messages WHERE id = ANY (:ids ::uuid[]))")

# UPSERT may have waited for a row that psql was deleting, so that deletion is applied now. Only rows written by this
# transaction are checked: a row typed by hand after its deletion carries the deletion's version and must stay.
UNDO_DELETED = """
    DELETE FROM text_messages t USING deleted_messages d
    WHERE d.id = ANY ({written} ::uuid[]) AND t.id = d.id
        AND (d.version_timestamp, d.version_partition, d.version_offset)
            >= (t.version_timestamp, t.version_partition, t.version_offset)
    RETURNING t.id::text
"""

# What the triggers are told (see queue_embedding in the migrations); and the commit does not wait for the disk (see
# `make_durable`).
TELL = """set_config('synchronous_commit', 'off', true), set_config('text_pipeline.jobs', :collect, true),
        set_config('text_pipeline.reserved_seconds', :seconds, true),
        set_config('text_pipeline.job_messages', :job_messages, true),
        set_config('text_pipeline.lease', coalesce(:lease, ''), true)"""

# All that `write` does for a few texts, as one transaction of one round trip. A statement hands its result on in a
# setting, since only the rows of the last one come back. Whatever would have to wait is left to `write`.
PERSIST_FEW = session.for_driver(f"""
    SET LOCAL lock_timeout = '100ms';
    SELECT pg_advisory_xact_lock_shared(:key), {TELL};
    WITH written AS ({UPSERT}, content_hash AS hash)
    SELECT set_config('text_pipeline.written', coalesce(array_agg(id), '{{}}')::text, true),
        set_config('text_pipeline.unchanged', coalesce(array_agg(id) FILTER (WHERE NOT changed), '{{}}')::text, true),
        set_config('text_pipeline.hashes', string_agg(hash::text, ','), true),
        set_config('text_pipeline.all_new', (count(*) FILTER (WHERE new) = :count)::text, true) FROM written;
    WITH undone AS ({UNDO_DELETED.format(written="current_setting('text_pipeline.written')")})
    SELECT set_config('text_pipeline.undone', coalesce(array_agg(id), '{{}}')::text, true) FROM undone;
    SELECT current_setting('text_pipeline.jobs'), current_setting('text_pipeline.written')::text[],
        current_setting('text_pipeline.undone')::text[], current_setting('text_pipeline.unchanged')::text[],
        current_setting('text_pipeline.all_new')::boolean, current_setting('text_pipeline.hashes')
""")

MAKE_DURABLE = f"SELECT setval('durable_commits', 1), {DURABLE}"

REMEMBER_DELETIONS = text(f"""
    INSERT INTO deleted_messages AS t (id, version_timestamp, version_partition, version_offset)
    SELECT * FROM unnest(:ids ::uuid[], :timestamps ::bigint[], :partitions ::int[], :offsets ::bigint[]) AS r (id)
    ON CONFLICT (id) DO UPDATE SET
        version_timestamp = excluded.version_timestamp,
        version_partition = excluded.version_partition,
        version_offset = excluded.version_offset,
        deleted_at = excluded.deleted_at
    WHERE {LATER}
    RETURNING id::text
""")

DELETE_OLDER = text("""
    DELETE FROM text_messages t
    USING unnest(:ids ::uuid[], :timestamps ::bigint[], :partitions ::int[], :offsets ::bigint[])
        AS r (id, version_timestamp, version_partition, version_offset)
    WHERE t.id = r.id AND (t.version_timestamp, t.version_partition, t.version_offset)
        < (r.version_timestamp, r.version_partition, r.version_offset)  -- equal: typed by hand after that deletion
""")


def latest(records: Collection[Record]) -> tuple[list[tuple[Record, int]], list[Record]]:
    """The texts (with the ms at which each was created) and the tombstones that count: at most one of each for an id.

    A tombstone also counts if a later text follows: that text is a new message, with a time of creation of its own.
    """
    if len({record.id for record in records}) == len(records) and None not in [record.message for record in records]:
        return [(record, record.timestamp) for record in records], []
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
    expect_new: bool = False,
    job_messages: int = 500,
    lease: str | None = None,
) -> Stored:
    """Stores texts and tombstones so that for each id the latest version wins, whatever came first. Idempotent.

    `expect_new` is a guess that none of the messages was there before, which costs half as much if it is right. If it
    is wrong, this raises NotNew: do it again in a new transaction, without the guess.
    `job_messages` is how many messages one embedding job takes at most. `lease` holds a job from the beginning, as if
    it were claimed, but without counting an attempt: the caller sends the job on with the texts, and that task may be
    lost on its way. If the messages take several jobs, these are free (see `outbox.messages_of`).

    What it has stored can be read and embedded as soon as it is committed, but is on the disk only once `make_durable`
    has returned.

    `reserved_seconds` keeps the sweep off the new jobs for so long, because the caller hands them on itself; None
    leaves them to the sweep. Raises RowsLocked when somebody holds one of the rows for longer than `row_lock_ms`, and
    what else the database says: a DataError is the fault of one of the records.
    """
    try:
        return write(connection, records, settings_of(reserved_seconds, job_messages, lease), row_lock_ms, expect_new)
    except OperationalError as error:
        waited_for_row = "advisory" not in (error.statement or "")
        if waited_for_row and getattr(error.orig, "pgcode", None) == errorcodes.LOCK_NOT_AVAILABLE:
            raise RowsLocked(str(error.orig).strip()) from error
        raise


def write(
    connection: Connection, records: Sequence[Record], told: dict[str, object], row_lock_ms: int, expect_new: bool
) -> Stored:
    """The statements of `persist`. Raises the database's errors as they are, and NotNew."""
    texts, tombstones = latest(records)
    # Without the lock a text and its tombstone, both uncommitted, would not see each other, and both would stay.
    lock = "pg_advisory_xact_lock" if tombstones else "pg_advisory_xact_lock_shared"
    any_deleted = connection.execute(
        text(f"""SELECT {lock}(:key), {TELL}, set_config('lock_timeout', :row_lock_ms, true), {ANY_DELETED}"""),
        told | {"row_lock_ms": str(row_lock_ms)},
    ).all()[0][-1]
    if tombstones:
        arrays = versions(tombstones)
        # The rows first, as somebody's DELETE does, or the two would wait for each other.
        connection.execute(
            text(f"SELECT FROM {each_message('id', 'FOR UPDATE')}"),
            {"ids": array(sorted(record.id for record in tombstones))},
        )
        new = set(connection.execute(REMEMBER_DELETIONS, arrays).scalars())
        # A row that is older than a deletion remembered before was typed by hand since, with that id: it stays.
        connection.execute(DELETE_OLDER, versions([record for record in tombstones if record.id in new]))
    written: Set[str] = frozenset()
    unchanged: frozenset[str] = frozenset()
    all_new = not tombstones
    if texts:
        created = within_dates(texts)
        few = len(texts) < COPY_FROM
        if all_new and expect_new and not few and not (any_deleted and some_deleted(connection, texts)):
            written = insert(connection, created)
        else:
            found = upsert(connection, created)
            written = found.keys()
            all_new = all_new and sum(row.new for row in found.values()) == len(texts)
            unchanged = frozenset(row.id for row in found.values() if not row.changed)
    replayed = [record.replayed for record in records if record.replayed is not None]
    if replayed:
        dead_letters.set_state(connection, replayed, "replayed")
    jobs: list[int] = []
    may_differ = False
    if written:
        collected, any_deleted, may_differ = connection.execute(
            text(f"SELECT current_setting('text_pipeline.jobs'), {ANY_DELETED}, {OTHERS_TRIGGERS}")
        ).one()
        jobs = [int(job) for job in collected.split(",")[1:]]
        if any_deleted and some_deleted(connection, texts):
            undone = connection.execute(text(UNDO_DELETED.format(written=":ids")), {"ids": array(written)})
            written = written - set(undone.scalars())
    stored = {record.id: str(record.message) for record, _ in texts if record.id in written}
    differ = rewritten(stored, stored_hashes(connection, stored)) if may_differ else frozenset()
    return Stored(jobs, stored, all_new, told["lease"] is not None and len(jobs) == 1, unchanged, differ)


def rewritten(texts: Mapping[str, str], hashes: Iterable[tuple[str, str]]) -> frozenset[str]:
    """Those of the messages, by id, whose content hash as stored, which comes with the id, is not that of the given
    text."""
    by_id = {message_id: found.replace("-", "") for message_id, found in hashes}
    return frozenset(
        message_id for message_id, given in texts.items() if by_id.get(message_id) != content_hash(given).hex()
    )


def make_durable(connection: Connection) -> None:
    """Waits until everything committed so far is on the disk, and on the standbys that PostgreSQL waits for, as the
    commit of a write does. Takes a `session.autocommit_connection`. Raises psycopg2's errors.

    What setval writes to the log is flushed together with all that was written before
    (https://www.postgresql.org/docs/18/wal-async-commit.html). It waits also where somebody has turned that off for the
    database or the role.
    """
    session.ask_driver(connection, MAKE_DURABLE, {})


def within_dates(texts: Sequence[tuple[Record, int]]) -> Sequence[tuple[Record, int]]:
    """The texts, each with the nearest time of creation that can be shown as a date."""
    if all(FIRST_MS <= at <= LAST_MS for _, at in texts):
        return texts
    return [(record, min(max(at, FIRST_MS), LAST_MS)) for record, at in texts]


def some_deleted(connection: Connection, texts: Sequence[tuple[Record, int]]) -> bool:
    """Whether one of these messages was deleted before."""
    return bool(connection.execute(SOME_DELETED, {"ids": array(record.id for record, _ in texts)}).scalar_one())


def persist_few(
    connection: Connection,
    records: Sequence[Record],
    *,
    reserved_seconds: float | None,
    job_messages: int,
    lease: str | None = None,
) -> Stored | None:
    """As `persist`, for so few texts that the round trips are what it costs. Takes a `session.autocommit_connection`.
    Returns None, with nothing stored, for more texts, or if something is in the way. Raises psycopg2's errors.

    `lease` holds their jobs from the beginning, as `persist` says, here in every case.
    """
    if len(records) >= COPY_FROM or any(record.message is None or record.replayed for record in records):
        return None
    texts, _ = latest(records)
    if len(texts) > job_messages:
        return None
    created = within_dates(texts)
    values = upsert_values(created) | settings_of(reserved_seconds, job_messages, lease) | {"count": len(texts)}
    try:
        ((collected, written, undone, unchanged, all_new, hashes),) = session.ask_driver(
            connection, PERSIST_FEW, values
        )
    except (psycopg2.Error, ValueError) as error:
        if session.is_outage(error) and getattr(error, "pgcode", None) != errorcodes.LOCK_NOT_AVAILABLE:
            raise
        return None
    kept = set(written).difference(undone)
    jobs = [int(job) for job in collected.split(",")[1:]]
    stored = {record.id: str(record.message) for record, _ in texts if record.id in kept}
    differ = rewritten(stored, zip(written, hashes.split(","), strict=False))
    return Stored(jobs, stored, all_new, lease is not None, frozenset(unchanged), differ)


def settings_of(reserved_seconds: float | None, job_messages: int, lease: str | None) -> dict[str, object]:
    """What `TELL` takes, and the key of the tombstones' lock."""
    return {
        "lease": lease,
        "key": TOMBSTONE_LOCK,
        "collect": "" if reserved_seconds is None else "+",
        "seconds": str(reserved_seconds or 0),
        "job_messages": str(job_messages),
    }


def upsert(connection: Connection, texts: Sequence[tuple[Record, int]]) -> dict[str, Row[tuple[str, bool, bool]]]:
    """Writes the texts that are later than what is there, with the ms at which each was created. Returns the rows that
    it has written by their ids: (id, new, changed), whether the message is new and whether its text is."""
    return {row.id: row for row in connection.execute(text(UPSERT), upsert_values(texts))}


def upsert_values(texts: Sequence[tuple[Record, int]]) -> dict[str, object]:
    winners = [record for record, _ in texts]
    return {
        **versions(winners),
        "source_ids": [record.source_id for record in winners],
        "messages": [record.message for record in winners],
        "metadata": [record.metadata for record in winners],
        "created": [created for _, created in texts],
    }


def insert(connection: Connection, texts: Sequence[tuple[Record, int]]) -> Set[str]:
    """Writes messages that were never there, in half the time of `upsert`; returns their ids. Raises NotNew and
    RowsLocked."""
    try:
        texts = sorted(texts, key=lambda text: text[0].id)  # the order in which every writer locks
        rows = message_rows([record for record, _ in texts], [created for _, created in texts])
        copy_pieces(connection.connection.cursor(), COPY_MESSAGES, [rows])
    except psycopg2.errors.LockNotAvailable as error:
        raise RowsLocked(str(error).strip()) from error
    except (psycopg2.DataError, psycopg2.IntegrityError, ValueError, OverflowError) as error:
        raise NotNew from error
    return {record.id for record, _ in texts}


def locked_messages(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Those of the messages whose rows another transaction holds. The others are locked until this one ends."""
    given = {"ids": array(sorted(ids))}
    there = connection.execute(text(f"SELECT m.id::text FROM {each_message('id')}"), given).scalars()
    free = connection.execute(text(f"SELECT m.id::text FROM {each_message('id', 'FOR UPDATE SKIP LOCKED')}"), given)
    return set(there).difference(free.scalars())


def versions(records: Sequence[Record]) -> dict[str, object]:
    return {
        "ids": array(record.id for record in records),
        "timestamps": array(record.timestamp for record in records),
        "partitions": array(record.partition for record in records),
        "offsets": array(record.offset for record in records),
    }


def has_old_deletions(connection: Connection) -> bool:
    """Whether a deletion is remembered that may be old enough to be forgotten."""
    return bool(
        connection.execute(
            text(f"SELECT EXISTS (SELECT FROM deleted_messages WHERE deleted_at < clock_timestamp() - {MARGIN})")
        ).scalar_one()
    )


def forget_old_deletions(connection: Connection, log_ms: int) -> int:
    """Drops remembered deletions that are older than the oldest record that the log can hold, and older than the oldest
    dead letter that may still be sent again or that a replay has put back into the log; returns how many."""
    return connection.execute(
        text(f"""
            DELETE FROM deleted_messages
            WHERE deleted_at < clock_timestamp() - make_interval(secs => :seconds) - {MARGIN}
                AND version_timestamp < (
                    SELECT coalesce(min(timestamp), {2**63 - 1}) FROM dead_letters
                    WHERE state = 'open' OR state = 'replayed'
                        AND state_changed_at >= clock_timestamp() - make_interval(secs => :seconds) - {MARGIN})
        """),
        {"seconds": log_ms / 1000},
    ).rowcount
