"""Embedding: claim the jobs, embed outside of any transaction, store the vectors of the texts that are still
current."""

import contextlib
import logging
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

import psycopg2
from celery import Task
from celery.signals import worker_process_init
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

import settings
import task_names
from db import embeddings, outbox, session
from db.content_hashes import content_hash
from db.embeddings import NO_VECTORS, Embedded, Following
from db.outbox import Job, Left
from embedder import Embedder, EmbedderUnavailable, ModelError
from settings import LOCAL_PROVIDERS, InvalidSetting
from tasks import leases, measured, reembedding, resources
from tasks.app import app
from tasks.chain import SENT, free_places, send_on
from tasks.outages import Refused, reason, retry
from tasks.task_texts import current_texts, divided, grouped_by_bytes
from tasks.vectors import CUT_SHORT, embed, seconds_to_wait
from telemetry import logs

log = logging.getLogger(__name__)

# A job of several messages that has cost this many attempts (a worker died over it) is split.
SPLIT_AFTER = 2
# The first attempt may have ended because of another job in its task; from the second on a job has a task of its own.
ATTEMPTS_LEAST = 2

COLLISIONS = 5  # tries to store vectors: the first one guesses, and others may write to the same messages each time
OVERTAKEN = (embeddings.ModelSwitched, outbox.LeaseLost)

# A model that computes here takes what other processes leave of the cores: a search must not wait for a backlog.
NICE = 10

MODEL_ERROR_SECONDS = 10.0  # until the jobs of a model that does not work are tried again: somebody has to mend it
# Hundreds of texts of which each fails at every try leave the sweep room for others (EMBED_QUEUE_MAX a second).
FAILED_SECONDS = 30.0
SWITCHED_SECONDS = 0.5  # until jobs that were embedded by the old model are due for the new one, at the next sweep


@app.task(bind=True, name=task_names.EMBED_TEXT, max_retries=None, ignore_result=True)
def embed_text(
    self: Task,
    jobs: list[int],
    texts: dict[str, str] | None = None,
    lease: str | None = None,
    model: str | None = None,
    held: str | None = None,
) -> None:
    """Makes the vectors of the jobs' messages match their texts, and finishes the jobs.

    `texts` are those that the sender had at hand, by message id; the others are read. A text that was edited meanwhile
    is dropped here: the edit has queued a job of its own. `lease` is given only when the task retries itself, `model`
    for jobs of a model that is not the active one (tasks.reembedding). `held` is the lease with which the job of these
    texts was created: while that is fresh the job need not be claimed, and later it is claimed like any other. A worker
    that has lost a lease notices that when it stores, at the latest.
    """
    strings_or_none(lease=lease, model=model, held=held)
    again = lease is not None
    lease = lease or held or str(uuid.uuid4())
    fresh = held and texts and not again and is_fresh(getattr(self.request, SENT, None))
    claimed = [Job(jobs[0], list(texts or {}), deleted=False, attempts=1)] if fresh else None
    in_hand = (jobs, lease)
    try:
        following = carry_out(jobs, texts or {}, lease, counts=not again, model=model, claimed=claimed)
        if following is not None:
            in_hand = (following.jobs, str(uuid.uuid4()))
            carry_out(in_hand[0], {}, in_hand[1], counts=True, model=following.model)
    except (ModelError, InvalidSetting, EmbedderUnavailable) as error:
        # Nothing is lost: the jobs stay in their table, and the sweep brings them back when the model is right again.
        log.error("cannot embed: %s", error)
    except CUT_SHORT as error:
        # The lease runs out, as that of a worker that died, and the attempt counts: a text that always ends so would
        # go round for ever.
        log.error("a try was cut short, another one follows when its lease has run out: %r", error)
    except (SQLAlchemyError, psycopg2.Error) as error:
        if not session.is_outage(error):
            release_failed(*in_hand)
            raise
        raise retry(self, Refused(reason(error)), lease=lease, model=model) from error
    except Exception:
        release_failed(*in_hand)
        raise


def strings_or_none(**given: object) -> None:
    """Raises TypeError for anything else, such as a number in a call by hand: PostgreSQL says of it what it says before
    it is set up, and the task would come again for ever."""
    for name, value in given.items():
        if not isinstance(value, str | None):
            raise TypeError(f"embed_text() takes a string as {name}, not {type(value).__name__}")


def is_fresh(sent: float | None) -> bool:
    """Whether a lease that was given at `sent`, in seconds since 1970, has most of its time left. A clock that is wrong
    costs a claim, or makes work be done twice."""
    return sent is None or 0 <= time.time() - sent < settings.load().embed_lease_seconds * leases.FRESH


def carry_out(
    jobs: Sequence[int],
    texts: dict[str, str],
    lease: str,
    *,
    counts: bool,
    model: str | None,
    claimed: Sequence[Job] | None = None,
) -> Following | None:
    """Does the jobs, as far as they are free; returns those that are to follow without delay. Raises what the database
    and loading the model raise."""
    with reembedding.noted_for(model):
        embedder = resources.embedder() if model is None else resources.second_embedder(model)
    # embeddings.finish_with_vectors says when this may be true. A held job's texts were sent by whoever wrote them and
    # so queued it (chain_embedding). If no texts came along, all are read below, after their jobs were queued. Texts
    # that came for jobs which have to be claimed may belong to other jobs. A second model's jobs were queued by no
    # trigger (outbox.queue_for), and have no number of edits to compare.
    of_the_jobs = claimed is not None or (model is None and not texts)
    if claimed is None:
        claimed = claim(jobs, lease, embedder.model, counts=counts, is_active_model=model is None)
    if not claimed:
        return None
    current, later = current_texts(claimed, texts)
    claimed, untried = divided(claimed, later)
    if untried:
        hand_on(untried, later, lease, model)
    done = embed_or_release(embedder, claimed, current, lease, model)
    if done is None:
        return None
    goes_on = bool(later) and not done.left.message_ids and model is None and free_places() > 0
    if later:
        seconds = settings.load().embed_lease_seconds if goes_on else done.left.seconds
        done = done._replace(left=Left(done.left.message_ids | later.keys(), seconds))
    following = finish(claimed, lease, embedder.model, done, is_active_model=model is None, of_the_jobs=of_the_jobs)
    if goes_on:
        send_on([[job] for job in claimed if not later.keys().isdisjoint(job.message_ids)])
    return following


def claim(jobs: Sequence[int], lease: str, model: str, *, counts: bool, is_active_model: bool) -> list[Job]:
    """Claims the jobs that are free, except those that have killed their worker too often: of these, one of several
    messages is split, and the message of a job of one is marked as failed."""
    config = settings.load()
    with session.autocommit_connection(resources.engine()) as connection:
        claimed = outbox.claim_jobs(connection, jobs, lease, config.embed_lease_seconds, counts=counts)
    spent = [job for job in claimed if is_spent(job, config.embed_attempts_max)]
    for job in spent:
        done = Embedded(NO_VECTORS)
        try:
            with resources.engine().begin() as connection:
                if len(job.message_ids) > 1:
                    outbox.split_job(connection, job, lease)
                else:
                    done = give_up(connection, job, lease, model)
            tell([job], done, is_active_model=is_active_model)
        except OVERTAKEN as error:
            step_back(error, [job], lease, model)
    return [job for job in claimed if job not in spent]


def is_spent(job: Job, attempts_max: int) -> bool:
    return job.attempts > (SPLIT_AFTER if len(job.message_ids) > 1 else max(attempts_max, ATTEMPTS_LEAST))


def give_up(connection: Connection, job: Job, lease: str, model: str) -> Embedded:
    """Marks the one message of a job as failed: each attempt ended without a word, or was cut short."""
    tried = replace(job, attempts=job.attempts - 1)  # this claim is no attempt
    said = f"given up after {tried.attempts} attempts: the worker died each time, took too long or had no memory left"
    failures = [
        (message_id, str(uuid.UUID(bytes=content_hash(text))), said)
        for message_id, text in embeddings.texts(connection, job.message_ids, most_bytes=0)[0].items()
    ]
    done = Embedded(NO_VECTORS, failures)
    embeddings.finish_with_vectors(connection, [tried], lease, model, done)
    return done


def embed_or_release(
    embedder: Embedder, claimed: Sequence[Job], texts: Mapping[str, str], lease: str, model: str | None
) -> Embedded | None:
    """What came of the texts of the jobs, whose lease is kept meanwhile; None where there is no embedding now, and the
    jobs were given back to wait for it."""
    try:
        with reembedding.noted_for(model), leases.kept(claimed, lease, settings.load().embed_lease_seconds):
            return embed(embedder, texts)
    except EmbedderUnavailable as error:
        log.warning("embedder unavailable, the jobs wait: %s", error)
        seconds = seconds_to_wait(error)
    except ModelError as error:
        log.error("cannot embed, the jobs wait: %s", error)
        seconds = MODEL_ERROR_SECONDS
    except SystemExit:  # a cold stop of this worker (tasks.consumer), which says nothing against the texts
        with contextlib.suppress(SQLAlchemyError, psycopg2.Error):
            release(claimed, lease, 0.0)
        raise
    release(claimed, lease, seconds)
    resources.forget_if_switched(embedder.model)
    return None


def hand_on(untried: Sequence[Job], later: Mapping[str, int], lease: str, model: str | None) -> None:
    """Gives back the jobs that the task does not get to: at once to tasks of their own as far as the queue has room for
    these, the rest to the sweep."""
    groups = grouped_by_bytes(untried, later)
    places = free_places() if model is None else 0  # those of a second model are sent by tasks.reembedding alone
    sent, left = groups[:places], groups[places:]
    for some, seconds in ((sent, settings.load().embed_lease_seconds), (left, 0.0)):
        if jobs := [job for group in some for job in group]:
            release(jobs, lease, seconds)
    send_on(sent)


def release(claimed: Sequence[Job], lease: str, seconds: float) -> None:
    with resources.engine().begin() as connection:
        outbox.release_jobs(connection, [job.id for job in claimed], lease, seconds=seconds)


def release_failed(jobs: Sequence[int], lease: str) -> None:
    """Gives the jobs back that a task has in hand as it ends with an error: no worker has died over them."""
    with contextlib.suppress(SQLAlchemyError, psycopg2.Error), resources.engine().begin() as connection:
        outbox.release_failed_jobs(connection, jobs, lease, seconds=FAILED_SECONDS)


def finish(
    claimed: Sequence[Job], lease: str, model: str, done: Embedded, *, is_active_model: bool, of_the_jobs: bool
) -> Following | None:
    """Stores what was embedded and finishes the jobs; tries again if a vector is there already, or if another worker is
    at the same message. `is_active_model` says whether the messages are logged and counted as embedded."""
    if of_the_jobs and finish_if_few(claimed, lease, model, done):
        tell(claimed, done, is_active_model=is_active_model)
        return None
    for attempt in range(COLLISIONS):
        try:
            with resources.engine().begin() as connection:
                following = embeddings.finish_with_vectors(
                    connection,
                    claimed,
                    lease,
                    model,
                    done,
                    expect_new=attempt == 0,  # an edit took the old vector with it
                    of_the_jobs=of_the_jobs and attempt == 0,
                )
            tell(claimed, done, is_active_model=is_active_model)
            return following
        except OVERTAKEN as error:
            step_back(error, claimed, lease, model)
            return None
        except psycopg2.errors.UniqueViolation:
            if attempt == COLLISIONS - 1:
                raise
    return None


def step_back(error: Exception, claimed: Sequence[Job], lease: str, model: str) -> None:
    """Leaves the jobs to whoever has them by now, or to the model that is active by now."""
    if isinstance(error, outbox.LeaseLost):
        log.info("lease lost, somebody else does these jobs")
        return
    log.warning("the active model is %s: vectors of %s are not wanted", error, model)
    resources.embedder.cache_clear()
    release(claimed, lease, SWITCHED_SECONDS)


def finish_if_few(claimed: Sequence[Job], lease: str, model: str, done: Embedded) -> bool:
    """Stores the vectors of a job in one round trip; returns whether that was possible."""
    if len(claimed) != 1 or done.failures or done.left.message_ids:
        return False
    try:
        with session.autocommit_connection(resources.engine()) as connection:
            return embeddings.finish_few(connection, claimed[0], lease, model, done.vectors)
    except psycopg2.IntegrityError:
        return False


def tell(jobs: Sequence[Job], done: Embedded, *, is_active_model: bool) -> None:
    if is_active_model:
        measured.embedded(done.vectors.message_ids, len(done.failures), jobs)
        logs.each_id(log, "embedded", done.vectors.message_ids)


@worker_process_init.connect
def load_model(**_: object) -> None:
    """Loads the model when a process of an embed worker starts, so that the first text does not wait for it."""
    if "embed" not in app.amqp.queues.consume_from:
        return
    if settings.load().embedding_provider in LOCAL_PROVIDERS:
        os.nice(NICE)
    try:
        resources.embedder()
    except (ModelError, InvalidSetting) as error:
        log.error("cannot embed: %s", error)
    except EmbedderUnavailable as error:
        log.warning("embedder unavailable at start: %s", error)
    except SQLAlchemyError as error:
        log.warning("database away at start: %s", reason(error))
