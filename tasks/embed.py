"""Embedding: claim the jobs, embed outside of any transaction, store the vectors of the texts that are still
current."""

import hashlib
import logging
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
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
from db import commands, queries, reuse, session
from db.commands import Job, Left, Vectors
from db.reuse import PassageVector
from embedder import Embedder, EmbedderUnavailable, ModelError, UnembeddableText
from settings import InvalidSetting
from tasks import measured, resources
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
LONGEST_PAUSE_SECONDS = 600.0  # whatever a provider asks for


class Passage(NamedTuple):
    """A part of a text, which is known by its content hash: several messages may have the same text."""

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
            with kept_leased(claimed, lease):
                done = embed(embedder, current_texts(claimed, texts or {}))
        except EmbedderUnavailable as error:
            log.warning("embedder unavailable, the jobs wait: %s", error)
            release(claimed, lease, pause(error))
        except ModelError as error:
            log.error("cannot embed, the jobs wait: %s", error)
            release(claimed, lease, MODEL_ERROR_SECONDS)
        else:
            store(claimed, lease, embedder.model, done)
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


@contextmanager
def kept_leased(claimed: Sequence[Job], lease: str) -> Iterator[None]:
    """Renews the lease from a thread of its own, however long the model or a remote provider takes."""
    seconds = settings.load().embed_lease_seconds
    done = threading.Event()

    def renew() -> None:
        while not done.wait(seconds / 3):
            try:
                with resources.engine().begin() as connection:
                    commands.claim_jobs(connection, [job.id for job in claimed], lease, seconds)
            except (SQLAlchemyError, psycopg2.Error) as error:
                log.warning("lease not renewed: %s", reason(error))

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Embedded(NamedTuple):
    """Vectors; (message id, content hash, reason) of each message that can have none; and what could not be tried."""

    vectors: Vectors
    failures: list[tuple[str, str, str]]
    left: Left


def embed(embedder: Embedder, texts: Mapping[str, str]) -> Embedded:
    """The vectors of all passages of these texts, by message id; a text that was embedded before is not embedded again.

    A provider that goes away half way keeps what it has done. Raises EmbedderUnavailable when that is nothing, and
    ModelError.
    """
    messages: dict[bytes, list[str]] = {}
    for message_id, text in texts.items():
        messages.setdefault(content_hash(text), []).append(message_id)
    rows = vectors_made_before(embedder, messages)
    passages: list[Passage] = []
    failed: dict[bytes, str] = {}
    for digest, (message_id, *_) in messages.items():
        if digest in rows:
            continue
        try:
            passages += passages_of(embedder, digest, texts[message_id])
        except (EmbedderUnavailable, ModelError):
            raise
        except Exception as error:  # noqa: BLE001 - whatever a text makes the tokenizer raise must not sink its neighbours
            failed[digest] = f"{type(error).__name__}: {error}"
    done = 0
    left: set[bytes] = set()
    seconds = 0.0
    for part in portions(passages):
        try:
            answers = vectors_or_reasons(embedder, [passage.text for passage in part])
        except EmbedderUnavailable as error:
            left = {passage.content_hash for passage in passages[done:]}
            if left == messages.keys() - failed.keys():
                raise
            log.warning("embedder unavailable, %d texts wait: %s", len(left), error)
            seconds = pause(error)
            break
        done += len(part)
        for passage, answer in zip(part, answers, strict=True):
            if isinstance(answer, str):
                failed[passage.content_hash] = answer
            else:
                span = (passage.start, passage.end)
                rows.setdefault(passage.content_hash, []).append(PassageVector(passage.number, span, answer))
    whole = {digest: rows[digest] for digest in messages if digest in rows and digest not in left | failed.keys()}
    return Embedded(
        gather(messages, whole),
        [
            (message_id, str(uuid.UUID(bytes=digest)), why)
            for digest, why in failed.items()
            if digest not in left
            for message_id in messages[digest]
        ],
        Left(frozenset(message_id for digest in left for message_id in messages[digest]), seconds),
    )


def vectors_made_before(embedder: Embedder, digests: Collection[bytes]) -> dict[bytes, list[PassageVector]]:
    if not embedder.worth_keeping:
        return {}
    with resources.engine().begin() as connection:
        return reuse.vectors_of(connection, embedder.model, digests)


def gather(messages: Mapping[bytes, list[str]], rows: Mapping[bytes, list[PassageVector]]) -> Vectors:
    """The rows of each text for each message that has it."""
    every = [
        (uuid.UUID(message_id).bytes, digest, row)
        for digest, made in rows.items()
        for message_id in messages[digest]
        for row in made
    ]
    if not every:
        return commands.no_vectors()
    return Vectors(
        [message_id for message_id, _, _ in every],
        [digest for _, digest, _ in every],
        [row.number for _, _, row in every],
        [row.span for _, _, row in every],
        np.stack([row.vector for _, _, row in every]),
    )


def passages_of(embedder: Embedder, digest: bytes, text: str) -> list[Passage]:
    return [
        Passage(digest, number, start, end, text[start:end])
        for number, (start, end) in enumerate(embedder.passages(text))
    ]


def pause(error: EmbedderUnavailable) -> float:
    return min(error.retry_after or 1.0, LONGEST_PAUSE_SECONDS)


def portions(passages: Sequence[Passage]) -> Iterator[Sequence[Passage]]:
    """Cuts the work so that a portion takes a second or two, and memory stays bounded."""
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


def store(claimed: Sequence[Job], lease: str, model: str, done: Embedded) -> None:
    """Stores what was embedded; a collision with another worker over the same message is settled by doing it again."""
    for attempt in range(COLLISIONS):
        try:
            with resources.engine().begin() as connection:
                commands.store_embeddings(
                    connection, claimed, lease, model, done.vectors, done.failures, left=done.left
                )
            measured.embedded(done.vectors.message_ids, len(done.failures))
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
