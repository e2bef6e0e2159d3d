"""What comes of the jobs: vectors and failures are stored, the jobs finished, and the active model is held meanwhile.

Each function runs in the caller's transaction and never commits.
"""

import json
import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray
from sqlalchemy import Connection, text

from db.content_hashes import stored_hashes
from db.copy import copy_pieces, id_bytes, ids_array, vector_rows
from db.outbox import Job, LeaseLost, Left, give_back, queue_for, requeue_outdated
from db.session import ask_driver, for_driver
from db.sql import ACTIVE, array, each_message
from records import printable

# From this many vectors on COPY is worth its round trips.
FEW = 16

# Kept of what a provider or a tokenizer has said, which may quote a part of the text: half of an emoji, a NUL.
REASON_CHARS = 1_000


class ModelSwitched(Exception):
    """Another model has become the active one; this model's vectors are not wanted any more."""


class Following(NamedTuple):
    """Jobs for the vectors of another model, for messages that have just got those of the active model."""

    model: str
    jobs: list[int]


class Active(NamedTuple):
    """The active model, as far as whoever stores vectors has to know it (db.reembedding)."""

    name: str
    followed_by: str | None
    follow_now: bool


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


NO_VECTORS = Vectors([], [], [], [], np.empty((0, 0), dtype=np.float32))

# Message id, content hash, and the reason why this text can have no vector.
Failure = tuple[str, str, str]


class Embedded(NamedTuple):
    """What came of the messages of some jobs: vectors, failures, and those that are left, as not yet tried."""

    vectors: Vectors
    failures: Sequence[Failure] = ()
    left: Left = Left(frozenset(), 0.0)

    def only(self, ids: Collection[str]) -> "Embedded":
        places = [place for place, found in enumerate(self.vectors.message_ids) if str(uuid.UUID(bytes=found)) in ids]
        return self._replace(
            vectors=self.vectors.only(places), failures=[failure for failure in self.failures if failure[0] in ids]
        )


def finish_with_vectors(
    connection: Connection,
    jobs: Sequence[Job],
    lease: str,
    model: str,
    done: Embedded,
    *,
    expect_new: bool = False,
    of_the_jobs: bool = False,
) -> Following | None:
    """Finishes jobs. A vector whose message still has the text that it was made of replaces the older ones; any other
    is dropped. Messages that are left stay queued.

    While another model's vectors are made beside those of the active one, jobs for these messages are queued in the
    same transaction, so that none is missed; jobs that should not wait are returned.

    `expect_new` is a guess that no vector has to be replaced, which saves looking for older ones. `of_the_jobs` says
    that the texts come from the transaction that queued these jobs, or were read after the claim. They are compared
    with the table only if any message was edited or deleted since. Pass False if the texts may belong to another job,
    as after the tables were created anew. Jobs that no trigger queued are always compared.

    A job that somebody else has taken over is left to them, with its messages. Raises LeaseLost if all were taken over,
    and psycopg2's UniqueViolation if the guess was wrong, or if another worker writes vectors of the same message at
    this moment: do it again in a new transaction, without the guess.
    """
    finished = finish_jobs(connection, jobs, lease, model, done.left)
    if jobs and not finished.jobs:
        raise LeaseLost
    if done.left.message_ids or len(finished.jobs) != len(jobs):
        ours = {message_id for job in finished.jobs for message_id in job.message_ids} - done.left.message_ids
        done = done.only(ours)
        jobs = [
            replace(job, message_ids=[found for found in job.message_ids if found in ours]) for job in finished.jobs
        ]
    active = finished.active or lock_active(connection)
    if active is None and len(done.vectors.message_ids):  # the tables were made anew under a running worker
        active = Active(register_model(connection, model, done.vectors.embeddings.shape[1]), None, False)
    is_second = active is not None and model == active.followed_by
    if active is not None and model != active.name and not is_second:
        raise ModelSwitched(active.name)
    vectors = done.vectors
    every = sum(len(job.message_ids) for job in jobs)
    # Some may be edited, deleted or failed.
    if not (of_the_jobs and finished.unedited) or len(set(vectors.message_ids)) != every:
        vectors = settle(connection, jobs, model, done, is_second=is_second)
    if len(vectors.message_ids):
        if not expect_new:
            delete_outdated(connection, model, {uuid.UUID(bytes=found) for found in vectors.message_ids}, vectors)
        copy(connection, model, vectors)
    if active is None or active.followed_by is None or is_second:
        return None
    following = queue_for(
        connection, active.followed_by, [found for job in jobs if not job.deleted for found in job.message_ids]
    )
    return Following(active.followed_by, following) if active.follow_now and following else None


# All that `finish_with_vectors` does for a few vectors if nothing stands in the way, as one transaction of one round
# trip. If something does, no job is found and nothing is done.
FINISH_FEW = for_driver("""
    SELECT set_config('synchronous_commit', 'off', true), set_config('enable_seqscan', 'off', true);
    WITH active AS (
        SELECT FROM embedding_models WHERE active AND name = :model AND followed_by IS NULL FOR SHARE
    ), finished AS (
        DELETE FROM embedding_jobs
        WHERE id = :job AND lease = :lease ::uuid AND edits = edits_until_now() AND EXISTS (SELECT FROM active)
            AND NOT EXISTS (SELECT FROM embedding_failures WHERE message_id = ANY (:ids ::uuid[]))
        RETURNING id
    )
    INSERT INTO message_embeddings
        (message_id, passage_number, passage_start, passage_end, content_hash, model, embedding)
    SELECT v.message_id, v.number, v.start, v.stop, v.content_hash, :model, v.embedding::halfvec
    FROM finished CROSS JOIN unnest(:ids ::uuid[], :numbers ::int[], :starts ::int[], :ends ::int[], :hashes ::uuid[],
        :embeddings ::text[]) AS v (message_id, number, start, stop, content_hash, embedding)
    RETURNING id
""")


def finish_few(connection: Connection, job: Job, lease: str, model: str, vectors: Vectors) -> bool:
    """As `finish_with_vectors`, of the job's own texts, for so few vectors that the round trips are what it costs.
    Takes a `session.autocommit_connection`. Returns False, with nothing stored, for more vectors, or if something is in
    the way: an edit, another model, a lease that was lost. Raises psycopg2's errors; IntegrityError means that a vector
    is there already."""
    ids = vectors.message_ids
    if job.deleted or not 0 < len(ids) < FEW or len(set(ids)) != len(job.message_ids):
        return False
    values = {
        "job": job.id,
        "lease": lease,
        "model": model,
        "ids": array(found.hex() for found in ids),
        "numbers": array(vectors.numbers),
        "starts": array(start for start, _ in vectors.spans),
        "ends": array(end for _, end in vectors.spans),
        "hashes": array(found.hex() for found in vectors.content_hashes),
        "embeddings": [
            orjson.dumps(vector, option=orjson.OPT_SERIALIZE_NUMPY).decode() for vector in vectors.embeddings
        ],
    }
    return len(ask_driver(connection, FINISH_FEW, values)) == len(ids)


def settle(
    connection: Connection,
    jobs: Sequence[Job],
    model: str,
    done: Embedded,
    *,
    is_second: bool,
) -> Vectors:
    """Compares the texts that were embedded with those that are there now; returns the vectors that may be stored.

    Vectors and failures of older texts are dropped, and the vectors deleted if they are stored. Their messages are
    queued again: for the active model unless that was done; for the second one (`is_second`) always, since the edit may
    have fallen into a time in which the change was stopped.
    """
    vectors = done.vectors
    ids = {message_id for job in jobs for message_id in job.message_ids}
    current = current_hashes(connection, ids)
    keep = [
        place
        for place, message_id in enumerate(vectors.message_ids)
        if current.get(message_id) == vectors.content_hashes[place]
    ]
    if len(keep) != len(vectors.message_ids):
        vectors = vectors.only(keep)
    written = set(vectors.message_ids)
    others = [message_id for message_id in ids if id_bytes(message_id) not in written]
    if others:
        delete_outdated(connection, model, others)
    attempts = max((job.attempts for job in jobs), default=0)
    failed = {
        uuid.UUID(failure[0]).bytes
        for failure in done.failures
        if record_failure(connection, *failure, model=model, attempts=attempts)
    }
    outdated = current.keys() - written - failed
    if not is_second:
        requeue_outdated(connection, model, outdated)
    elif outdated:
        queue_for(connection, model, [str(uuid.UUID(bytes=each)) for each in outdated])
    return vectors


def lock_active(connection: Connection) -> Active | None:
    """The active model, which stays the active one until the transaction ends. Needed if `finish_jobs` returns none:
    while it waited for the model's row, another model became the active one."""
    row = connection.execute(text(f"{ACTIVE_ROW} FOR SHARE")).one_or_none()
    return None if row is None else Active(*row)


def texts(connection: Connection, ids: Collection[str], *, most_bytes: int) -> tuple[dict[str, str], dict[str, int]]:
    """The texts of the messages that exist, by id: always the first, and more of them up to `most_bytes` in total. And
    by id the sizes in bytes of the texts that were not read."""
    rows = connection.execute(
        text(f"""
            SELECT id, CASE WHEN before = 0 OR before + size <= :most THEN message END, size
            FROM (SELECT m.id::text, m.message, octet_length(m.message) AS size,
                    sum(octet_length(m.message)) OVER (ROWS UNBOUNDED PRECEDING) - octet_length(m.message) AS before
                  FROM {each_message("id, message")}) AS sized
        """),
        {"ids": array(ids), "most": most_bytes},
    ).all()
    return {row[0]: row[1] for row in rows if row[1] is not None}, {row[0]: row[2] for row in rows if row[1] is None}


def current_hashes(connection: Connection, ids: Collection[str]) -> dict[bytes, bytes]:
    """The content hash of each message that is there, by id, both of 16 bytes."""
    rows = stored_hashes(connection, ids)
    if not rows:
        return {}
    found, hashes = (ids_array(column).tolist() for column in zip(*rows, strict=True))
    return dict(zip(found, hashes, strict=True))


def delete_outdated(connection: Connection, model: str, ids: Iterable[object], replacing: Vectors = NO_VECTORS) -> None:
    """Deletes the vectors of these messages that are not of their present text, whatever model made them, and those of
    this model that are of the same message and text as one of `replacing`.

    A message that was edited meanwhile may have the vector of its new text already. That one stays, and that of an
    older text, which was the present one a moment ago, cannot be stored beside it.
    """
    texts = set(zip(replacing.message_ids, replacing.content_hashes, strict=True))
    connection.execute(
        text("""
            DELETE FROM message_embeddings e
            WHERE e.message_id = ANY (:ids ::uuid[]) AND (
                e.model = :model AND (e.message_id, e.content_hash) IN (
                    SELECT * FROM unnest(:replaced ::uuid[], :hashes ::uuid[]))
                OR NOT EXISTS (SELECT FROM text_messages m
                               WHERE m.id = e.message_id AND m.content_hash = e.content_hash))
        """),
        {
            "ids": array(ids),
            "model": model,
            "replaced": array(message_id.hex() for message_id, _ in texts),
            "hashes": array(content_hash.hex() for _, content_hash in texts),
        },
    )


def copy(connection: Connection, model: str, vectors: Vectors) -> None:
    copy_pieces(
        connection.connection.cursor(),
        """COPY message_embeddings
           (message_id, passage_number, passage_start, passage_end, content_hash, model, embedding)
           FROM STDIN WITH (FORMAT binary)""",
        vector_rows(vectors, model),
    )


ACTIVE_ROW = "SELECT name, followed_by, follow_now FROM embedding_models WHERE active"

# The commit need not wait for the disk: a crash of the server undoes the vectors and the end of their jobs together, so
# the jobs are done again. No plan may read a whole table, which the planner takes for a small one until it has been
# analysed. All in one round trip.
FINISH = text(f"""
    SELECT set_config('synchronous_commit', 'off', true), set_config('enable_hashjoin', 'off', true),
        set_config('enable_mergejoin', 'off', true), set_config('enable_seqscan', 'off', true);
    WITH finished AS (
        DELETE FROM embedding_jobs WHERE id = ANY (:jobs ::bigint[]) AND lease = :lease ::uuid
        RETURNING id, message_ids, edits, deleted
    ), forgotten AS (
        DELETE FROM embedding_failures f USING (SELECT unnest(message_ids) AS id, deleted FROM finished) AS done
        WHERE EXISTS (SELECT FROM embedding_failures)  -- mostly there is none, and a thousand look-ups are spared
            AND f.message_id = done.id AND f.model = :model
            AND NOT (done.deleted AND EXISTS (  -- what was stored again since, and has failed
                SELECT FROM text_messages m WHERE m.id = f.message_id AND m.content_hash = f.content_hash OFFSET 0))
    )
    SELECT (SELECT array_agg(id) FROM finished), (
        SELECT bool_and(edits IS NOT DISTINCT FROM edits_until_now()) FROM finished), active.*
    FROM (SELECT) AS one LEFT JOIN ({ACTIVE_ROW} FOR SHARE) AS active ON TRUE
""")


class Finished(NamedTuple):
    """The jobs that were still ours; whether no message at all was edited or deleted since they were queued; and the
    active model, which stays the same until the transaction ends, or None if it has to be asked for again."""

    jobs: list[Job]
    unedited: bool
    active: Active | None


def finish_jobs(connection: Connection, jobs: Sequence[Job], lease: str, model: str, left: Left) -> Finished:
    """Removes jobs, except for their messages that are left to be done, and the failures of the messages that are
    done."""
    whole = [job for job in jobs if left.message_ids.isdisjoint(job.message_ids)]
    finished, unedited, name, *follow = connection.execute(
        FINISH, {"jobs": array(job.id for job in whole), "lease": lease, "model": model}
    ).one()
    ours = set(finished or [])
    for job in jobs:
        if not left.message_ids.isdisjoint(job.message_ids):
            unedited = False  # that is not asked here
            if give_back(connection, job, lease, left):
                ours.add(job.id)
                connection.execute(
                    text("DELETE FROM embedding_failures WHERE message_id = ANY (:done ::uuid[]) AND model = :model"),
                    {"done": array(set(job.message_ids) - left.message_ids), "model": model},
                )
    active = None if name is None else Active(name, *follow)
    return Finished([job for job in jobs if job.id in ours], bool(unedited), active)


def record_failure(
    connection: Connection, message_id: str, content_hash: str, reason: str, *, model: str, attempts: int
) -> bool:
    """Marks a message as failed if it has this text and nobody is about to change it. From then on a change waits for
    the end of the transaction, and takes the mark away. Returns whether it was marked."""
    return bool(
        connection.execute(
            text("""
                INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
                SELECT id, content_hash, :model, :reason, :attempts FROM text_messages
                WHERE id = :id ::uuid AND content_hash = :hash ::uuid FOR SHARE SKIP LOCKED
                ON CONFLICT (message_id, model) DO UPDATE SET content_hash = excluded.content_hash,
                    reason = excluded.reason, attempts = excluded.attempts, failed_at = clock_timestamp()
            """),
            {
                "id": message_id,
                "hash": content_hash,
                "model": model,
                "reason": printable(reason, REASON_CHARS),
                "attempts": attempts,
            },
        ).rowcount
    )


def register_model(
    connection: Connection, name: str, dimensions: int, settings: Mapping[str, str] | None = None
) -> str:
    """Makes a model the active one if there is none yet; returns the name of the active one. If it is this one,
    `settings` are recorded as those that make its provider."""
    connection.execute(
        text("""
            INSERT INTO embedding_models (name, dimensions, active)
            SELECT :name, :dimensions, TRUE WHERE NOT EXISTS (SELECT FROM embedding_models WHERE active)
            ON CONFLICT DO NOTHING
        """),
        {"name": name, "dimensions": dimensions},
    )
    if settings is not None:
        connection.execute(
            text("""
                UPDATE embedding_models SET settings = :settings ::jsonb
                WHERE active AND name = :name AND settings IS DISTINCT FROM :settings ::jsonb
            """),
            {"name": name, "settings": json.dumps(settings)},
        )
    return str(connection.execute(text(ACTIVE)).scalar_one())
