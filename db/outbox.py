"""The outbox: the jobs that say which messages' vectors are to be made or to go, and who is at it.

Each function runs in the caller's transaction and never commits. Jobs are queued by the triggers, whoever writes a
message; db.embeddings finishes them, together with what comes of them.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Connection, text

from db.sql import ACTIVE, array, each_message

# Messages in a job of a model that is not the active one.
SECOND_JOB = 100

# No job is reserved or put off for so long (EMBED_LEASE_SECONDS, tasks.vectors.LONGEST_PAUSE_SECONDS). One that is due
# later shows that PostgreSQL's clock was set back, and is free.
SET_BACK = "clock_timestamp() + INTERVAL '15 min'"


class LeaseLost(Exception):
    """Somebody else has taken the work over; what was done with the lease must not be written."""


@dataclass(frozen=True)
class Job:
    """A claimed row of the outbox: it is ours until its lease has run out. `created_at` is None if whoever stored its
    messages held it from the beginning."""

    id: int
    message_ids: list[str]
    deleted: bool
    attempts: int
    created_at: datetime | None = None


class Waiting(NamedTuple):
    """A job that waits for a task, and how many messages it has. `weight` is how much of a task it fills, in messages.
    A job that was tried before fills a whole task, so that if it kills its worker no other job loses an attempt, and
    none is marked as failed in its place."""

    id: int
    messages: int
    weight: int


class Left(NamedTuple):
    """Messages of claimed jobs that could not be tried yet, and after how many seconds they may be."""

    message_ids: frozenset[str]
    seconds: float


def claim_jobs(
    connection: Connection, jobs: Sequence[int], lease: str, seconds: float, *, counts: bool = True
) -> list[Job]:
    """Claims the jobs that nobody else holds, for `seconds`; claiming again with the same lease extends it.

    Without `counts` this is no new attempt, whoever held the lease meanwhile: the last attempt ended in an outage.
    """
    # A lease need not survive a crash of the server: the job is then simply free again. Two statements, one round trip.
    rows = connection.execute(
        text(f"""
            SET LOCAL synchronous_commit = off;
            UPDATE embedding_jobs SET lease = :lease ::uuid,
                attempts = attempts + (:counts AND lease IS DISTINCT FROM :lease ::uuid)::int,
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            WHERE id IN (
                SELECT id FROM embedding_jobs
                WHERE id = ANY (:jobs ::bigint[])
                    AND (lease IS NULL OR lease = :lease ::uuid OR available_at <= clock_timestamp()
                        OR available_at > {SET_BACK})
                FOR UPDATE SKIP LOCKED)
            RETURNING id, message_ids::text[], deleted, attempts, created_at
        """),
        {"jobs": array(jobs), "lease": lease, "seconds": seconds, "counts": counts},
    )
    return [Job(*row) for row in rows]


def messages_of(connection: Connection, jobs: Sequence[int], lease: str | None) -> dict[int, tuple[list[str], bool]]:
    """By job, the ids of its messages, and whether this lease holds it."""
    rows = connection.execute(
        text("""
            SELECT id, message_ids::text[], coalesce(lease = :lease ::uuid, FALSE) FROM embedding_jobs
            WHERE id = ANY (:jobs ::bigint[]) ORDER BY id
        """),
        {"jobs": array(jobs), "lease": lease},
    )
    return {row[0]: (row[1], row[2]) for row in rows}


# A job that could not be done now: anybody's in :seconds, and the attempt does not count.
GIVEN_BACK = """lease = NULL, attempts = greatest(attempts - 1, 0),
                available_at = clock_timestamp() + make_interval(secs => :seconds)"""


def release_jobs(connection: Connection, jobs: Sequence[int], lease: str, *, seconds: float) -> None:
    """Gives jobs back that could not be done now, through no fault of their own: they may be claimed again after
    `seconds`, and the attempt does not count."""
    connection.execute(
        text(f"""
            UPDATE embedding_jobs SET {GIVEN_BACK}
            WHERE id = ANY (:jobs ::bigint[]) AND lease = :lease ::uuid
        """),
        {"jobs": array(jobs), "lease": lease, "seconds": seconds},
    )


def release_failed_jobs(connection: Connection, jobs: Sequence[int], lease: str, *, seconds: float) -> None:
    """Gives jobs back whose task has ended with an error. The attempt counts for those of several messages, which are
    split if it goes on, so that the others pass. A message alone is tried as often as it takes, in a task of its own.
    """
    connection.execute(
        text("""
            UPDATE embedding_jobs SET lease = NULL,
                attempts = greatest(attempts - (cardinality(message_ids) = 1)::int, 1),
                available_at = clock_timestamp() + make_interval(secs => :seconds)
            WHERE id = ANY (:jobs ::bigint[]) AND lease = :lease ::uuid
        """),
        {"jobs": array(jobs), "lease": lease, "seconds": seconds},
    )


def give_back(connection: Connection, job: Job, lease: str, left: Left) -> bool:
    """As `release_jobs`, of one job with those of its messages that are left. Returns whether it was still ours."""
    return bool(
        connection.execute(
            text(f"""
                UPDATE embedding_jobs SET message_ids = :left ::uuid[], {GIVEN_BACK}
                WHERE id = :id AND lease = :lease ::uuid
            """),
            {
                "left": array(message_id for message_id in job.message_ids if message_id in left.message_ids),
                "seconds": left.seconds,
                "id": job.id,
                "lease": lease,
            },
        ).rowcount
    )


def split_job(connection: Connection, job: Job, lease: str) -> None:
    """Replaces a job by two of half its messages each, so that the message that cannot pass ends up alone. Each half
    counts as tried once, or the sweep would put the two together again."""
    middle = len(job.message_ids) // 2
    for half in (job.message_ids[:middle], job.message_ids[middle:]):
        connection.execute(
            text("""
                INSERT INTO embedding_jobs (message_ids, deleted, attempts, created_at, model, edits)
                SELECT :half ::uuid[], deleted, 1, created_at, model, edits FROM embedding_jobs
                WHERE id = :id AND lease = :lease ::uuid
            """),
            {"half": half, "id": job.id, "lease": lease},
        )
    connection.execute(
        text("DELETE FROM embedding_jobs WHERE id = :id AND lease = :lease ::uuid"), {"id": job.id, "lease": lease}
    )


WEIGHT = "CASE WHEN attempts > 0 THEN greatest(cardinality(message_ids), :task) ELSE cardinality(message_ids) END"


def take_waiting_jobs(
    connection: Connection, *, messages: int, task: int, seconds: float, small: int, given_up: float = 0.0
) -> list[Waiting]:
    """Reserves waiting jobs for `seconds`, with together at most about `messages` messages by their weight, of which a
    task takes `task`. Jobs of at most `small` messages come first, then the oldest. A lease that ends within `given_up`
    seconds counts as over. The jobs of a model that is not the active one are left to db.second_set."""
    # In the order of the ids a backlog is read only as far as it is taken: sorting a million jobs took half a second.
    connection.execute(
        text("SELECT set_config('synchronous_commit', 'off', true), set_config('enable_sort', 'off', true)")
    )
    taken: list[Waiting] = []
    for sized in ("cardinality(message_ids) <= :small", "cardinality(message_ids) > :small"):
        room = messages - sum(job.weight for job in taken)
        if room > 0:
            rows = connection.execute(
                text(f"""
                    WITH waiting AS (
                        SELECT id, {WEIGHT} AS weight FROM embedding_jobs
                        WHERE model IS NULL AND {sized} AND (available_at <= clock_timestamp()
                            OR lease IS NOT NULL
                                AND available_at <= clock_timestamp() + make_interval(secs => :given_up)
                            OR available_at > {SET_BACK})
                        ORDER BY id LIMIT :room FOR UPDATE SKIP LOCKED
                    ), chosen AS (
                        SELECT id FROM (SELECT id, sum(weight) OVER (ORDER BY id) - weight AS before FROM waiting)
                            AS running
                        WHERE before < :room
                    )
                    UPDATE embedding_jobs SET lease = NULL,
                        available_at = clock_timestamp() + make_interval(secs => :seconds)
                    WHERE id = ANY (ARRAY(SELECT id FROM chosen))
                    RETURNING id, cardinality(message_ids), {WEIGHT}
                """),
                {"room": room, "task": task, "seconds": seconds, "small": small, "given_up": given_up},
            )
            taken += [Waiting(*row) for row in rows]
    return sorted(taken)


def queue_for(connection: Connection, model: str, message_ids: Sequence[str]) -> list[int]:
    """Queues messages for a model that is not the active one, in jobs so small that a task of one delays nobody."""
    rows = connection.execute(
        text("""
            INSERT INTO embedding_jobs (message_ids, model)
            SELECT array_agg(id), :model
            FROM (SELECT id, (place - 1) / :size AS part
                  FROM unnest(:ids ::uuid[]) WITH ORDINALITY AS numbered (id, place)) AS cut
            GROUP BY part RETURNING id
        """),
        {"ids": array(message_ids), "model": model, "size": SECOND_JOB},
    )
    return list(rows.scalars())


def requeue_outdated(connection: Connection, model: str, message_ids: Iterable[bytes]) -> None:
    """Queues messages again whose current text has no vector, failure or job.

    Usually the edit has queued them already; but the sender of a task may have had the wrong text at hand, and a
    failure goes with the end of an older job.
    """
    ids = array(uuid.UUID(bytes=found) for found in message_ids)
    if ids != "{}":
        connection.execute(
            text(f"""
                SELECT queue_embedding(array_agg(m.id)) FROM {each_message("id, content_hash")}
                WHERE NOT EXISTS (
                    SELECT FROM message_embeddings e
                    WHERE e.message_id = m.id AND e.model = :model AND e.content_hash = m.content_hash)
                AND NOT EXISTS (
                    SELECT FROM embedding_failures f
                    WHERE f.message_id = m.id AND f.model = :model AND f.content_hash = m.content_hash)
                AND NOT EXISTS (
                    SELECT FROM embedding_jobs j
                    WHERE NOT j.deleted AND j.model IS NULL AND m.id = ANY (j.message_ids))
            """),
            {"ids": ids, "model": model},
        )


def queue_missing(connection: Connection, after: str | None, *, limit: int) -> tuple[int, str | None]:
    """Looks at `limit` messages behind the id `after`, and queues those without a vector of their text, a failure or a
    job: somebody has deleted their vectors. Returns how many, and the id behind which to go on, or None.
    """
    # OFFSET 0: each is looked up, or every piece would read all vectors.
    queued, last, looked_at = connection.execute(
        text(f"""
            WITH piece AS MATERIALIZED (
                SELECT id, content_hash FROM text_messages
                {"WHERE id > :after ::uuid" if after is not None else ""} ORDER BY id LIMIT :limit
            ), bare AS MATERIALIZED (
                SELECT id FROM piece p
                WHERE NOT EXISTS (
                    SELECT FROM message_embeddings e WHERE e.message_id = p.id AND e.content_hash = p.content_hash
                        AND e.model = {ACTIVE} OFFSET 0)
                AND NOT EXISTS (
                    SELECT FROM embedding_failures f WHERE f.message_id = p.id AND f.content_hash = p.content_hash
                        AND f.model = {ACTIVE} OFFSET 0)
            ), missing AS MATERIALIZED (
                SELECT id FROM bare b WHERE NOT EXISTS (  -- NOT IN would compare each with each, of many jobs
                    SELECT FROM (
                        SELECT unnest(message_ids) AS id FROM embedding_jobs WHERE NOT deleted AND model IS NULL
                    ) AS queued WHERE queued.id = b.id)
            )
            SELECT (SELECT count(*) FROM missing), (SELECT id::text FROM piece ORDER BY id DESC LIMIT 1),
                (SELECT count(*) FROM piece), queue_embedding((SELECT array_agg(id) FROM missing))
        """),
        {"limit": limit} | ({} if after is None else {"after": after}),
    ).one()[:3]
    return queued, last if looked_at == limit else None
