"""Embedding: claim the jobs, embed outside of any transaction, store the vectors of the texts that are still
current."""

import hashlib
import logging
import time
import uuid
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import psycopg2
from celery import Task
from celery.signals import worker_process_init
from numpy.typing import NDArray
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

import settings
import tasks
from db import commands, queries, session
from db.commands import Job, Vectors
from embedder import Embedder, EmbedderUnavailable, ModelError, UnembeddableText
from settings import InvalidSetting
from tasks import resources
from tasks.app import app
from tasks.persist import Outage, reason, retry

log = logging.getLogger(__name__)

# A job of several messages that has cost this many attempts (a worker died over it) is split.
SPLIT_AFTER = 2

# About 8,000 word pieces of English, or up to 30,000 of Chinese: half a second to three of the default model on one
# core.
PORTION_CHARS = 30_000

COLLISIONS = 5

MODEL_ERROR_SECONDS = 10.0


class Passage(NamedTuple):
    message_id: str
    content_hash: bytes
    number: int
    start: int
    end: int
    text: str


@app.task(bind=True, name=tasks.EMBED_TEXT, max_retries=None, ignore_result=True)
def embed_text(self: Task, jobs: list[int], texts: dict[str, str] | None = None, lease: str | None = None) -> None:
    """Makes the vectors of the jobs' messages match their texts, and finishes the jobs.

    `texts` are those that the sender had at hand, by message id; the others are read. A text that was edited meanwhile
    is dropped here: the edit has queued a job of its own. `lease` is given only when the task retries itself.
    """
    again = lease is not None
    lease = lease or str(uuid.uuid4())
    try:
        embedder = resources.embedder()
        claimed = claim(jobs, lease, embedder.model, counts=not again)
        if not claimed:
            return
        try:
            work = Work(claimed, lease)
            vectors, failures = work.embed(embedder, current_texts(claimed, texts or {}))
        except EmbedderUnavailable as error:
            log.warning("embedder unavailable, the jobs wait: %s", error)
            release(claimed, lease, error.retry_after or 1.0)
        except ModelError as error:
            log.error("cannot embed, the jobs wait: %s", error)
            release(claimed, lease, MODEL_ERROR_SECONDS)
        else:
            store(claimed, lease, embedder.model, vectors, failures)
    except (ModelError, InvalidSetting, EmbedderUnavailable) as error:
        # Nothing is lost: the jobs stay in their table, and the sweep brings them back when the model is right again.
        log.error("cannot embed: %s", error)
    except (SQLAlchemyError, psycopg2.Error) as error:
        if not session.is_outage(error):
            raise
        raise retry(self, Outage(reason(error)), lease=lease) from error


def claim(jobs: Sequence[int], lease: str, model: str, *, counts: bool) -> list[Job]:
    """Takes the jobs that are free, and sorts out those that have cost their worker its life too often."""
    config = settings.load()
    with resources.engine().begin() as connection:
        claimed = commands.claim_jobs(connection, jobs, lease, config.embed_lease_seconds, counts=counts)
        spent = [job for job in claimed if is_spent(job, config.embed_attempts_max)]
        for job in spent:
            if len(job.message_ids) > 1:
                commands.split_job(connection, job, lease)
            else:
                give_up(connection, job, lease, model)
    return [job for job in claimed if job not in spent]


def is_spent(job: Job, attempts_max: int) -> bool:
    return job.attempts > (SPLIT_AFTER if len(job.message_ids) > 1 else attempts_max)


def give_up(connection: Connection, job: Job, lease: str, model: str) -> None:
    """Marks the one message of a job as failed: each attempt ended without a word, so its worker died."""
    said = f"given up after {job.attempts - 1} attempts, each of which ended with its worker"
    failures = [
        (message_id, str(uuid.UUID(bytes=content_hash(text))), said)
        for message_id, text in queries.texts(connection, job.message_ids).items()
    ]
    commands.store_embeddings(connection, [job], lease, model, commands.no_vectors(), failures)


def current_texts(claimed: Sequence[Job], handed: dict[str, str]) -> dict[str, str]:
    wanted = {message_id for job in claimed if not job.deleted for message_id in job.message_ids}
    missing = [message_id for message_id in wanted if message_id not in handed]
    found = {message_id: handed[message_id] for message_id in wanted if message_id in handed}
    if missing:
        with resources.engine().begin() as connection:
            found |= queries.texts(connection, missing)
    return found


def content_hash(text: str) -> bytes:
    """The 16 bytes that PostgreSQL's md5(message)::uuid gives for a text: it tells texts apart, and protects
    nothing."""
    return hashlib.md5(text.encode(), usedforsecurity=False).digest()


class Work:
    """The embedding of claimed jobs, with a lease that is renewed while it takes long."""

    def __init__(self, claimed: Sequence[Job], lease: str) -> None:
        self.jobs = [job.id for job in claimed]
        self.lease = lease
        self.seconds = settings.load().embed_lease_seconds
        self.renewed = time.monotonic()

    def embed(self, embedder: Embedder, texts: dict[str, str]) -> tuple[Vectors, list[tuple[str, str, str]]]:
        """The vectors of all passages, and (message id, content hash, reason) of each message that has none."""
        passages = [
            Passage(message_id, content_hash(text), number, start, end, text[start:end])
            for message_id, text in texts.items()
            for number, (start, end) in enumerate(embedder.passages(text))
        ]
        rows: list[NDArray[np.float32] | str] = []
        for part in portions(passages):
            self.renew()
            rows += vectors_or_reasons(embedder, [passage.text for passage in part])
        failed = {
            passage.message_id: (passage.message_id, str(uuid.UUID(bytes=passage.content_hash)), row)
            for passage, row in zip(passages, rows, strict=True)
            if isinstance(row, str)
        }
        good = [
            (passage, row)
            for passage, row in zip(passages, rows, strict=True)
            if passage.message_id not in failed and not isinstance(row, str)
        ]
        if not good:
            return commands.no_vectors(), list(failed.values())
        return Vectors(
            [uuid.UUID(passage.message_id).bytes for passage, _ in good],
            [passage.content_hash for passage, _ in good],
            [passage.number for passage, _ in good],
            [(passage.start, passage.end) for passage, _ in good],
            np.stack([row for _, row in good]),
        ), list(failed.values())

    def renew(self) -> None:
        if time.monotonic() - self.renewed > self.seconds / 3:
            with resources.engine().begin() as connection:
                commands.claim_jobs(connection, self.jobs, self.lease, self.seconds)
            self.renewed = time.monotonic()


def portions(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    """Cuts the work so that a portion takes a second or two, in time to renew the lease."""
    first = size = 0
    for place, passage in enumerate(passages):
        if size and size + len(passage.text) > PORTION_CHARS:
            yield passages[first:place]
            first, size = place, 0
        size += len(passage.text)
    if passages:
        yield passages[first:]


def vectors_or_reasons(embedder: Embedder, texts: Sequence[str]) -> list[NDArray[np.float32] | str]:
    """A vector for each text, or the reason why there is none, found by halving. Raises for outages only."""
    try:
        vectors = embedder.embed(texts)
        if not np.isfinite(vectors).all():
            raise UnembeddableText("the model gave numbers that are not finite")
        return list(vectors)
    except (EmbedderUnavailable, ModelError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a text makes the model's libraries raise must not sink its neighbours
        if len(texts) == 1:
            return [f"{type(error).__name__}: {error}"]
    middle = len(texts) // 2
    return vectors_or_reasons(embedder, texts[:middle]) + vectors_or_reasons(embedder, texts[middle:])


def release(claimed: Sequence[Job], lease: str, seconds: float) -> None:
    with resources.engine().begin() as connection:
        commands.release_jobs(connection, [job.id for job in claimed], lease, seconds=seconds, refund=True)


def store(
    claimed: Sequence[Job], lease: str, model: str, vectors: Vectors, failures: Sequence[tuple[str, str, str]]
) -> None:
    """Stores what was embedded; a collision with another worker over the same message is settled by doing it again."""
    for attempt in range(COLLISIONS):
        try:
            with resources.engine().begin() as connection:
                commands.store_embeddings(connection, claimed, lease, model, vectors, failures)
            return
        except commands.ModelSwitched as error:
            log.warning("the model was changed to %s: these vectors are not wanted", error)
            resources.embedder.cache_clear()
            release(claimed, lease, MODEL_ERROR_SECONDS)
            return
        except commands.LeaseLost:
            log.info("lease lost, somebody else does these jobs")
            return
        except psycopg2.errors.UniqueViolation:
            if attempt == COLLISIONS - 1:
                raise


@worker_process_init.connect
def load_model(**_: object) -> None:
    """Loads the model when a process of an embed worker starts, so that the first text does not wait for it."""
    if "embed" not in app.amqp.queues.consume_from:
        return
    try:
        resources.embedder()
    except (ModelError, InvalidSetting) as error:
        log.error("cannot embed: %s", error)
    except EmbedderUnavailable as error:
        log.warning("embedder unavailable at start: %s", error)
    except SQLAlchemyError as error:
        log.warning("database away at start: %s", reason(error))
