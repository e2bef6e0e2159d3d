"""Many real texts with their vectors: embedded once, kept in a file, and stored by the product's own commands."""

import hashlib
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import texts
from benchmarks.texts import Text
from db import commands, embeddings, outbox, session
from db.embeddings import Embedded, Vectors
from embedder import Embedder
from records import Record
from settings import Settings
from stack import places
from stack.progress import say

PORTION = 500
REAL_MOST = 200_300
NOISE = 0.15  # of a unit vector's length: the copy is a near neighbour of its original, cosine 0.99


def sentences(embedder: Embedder, count: int, *, noise: bool = False) -> tuple[list[Text], np.ndarray]:
    """Sentences of Debian's descriptions with their vectors. With `noise`, all beyond REAL_MOST are noisy copies, since
    to embed a million takes hours."""
    held = texts.sentences(min(count, REAL_MOST) if noise else count)
    vectors = kept_vectors(embedder, held)
    if noise and len(held) < count:
        rng = np.random.default_rng(0)
        missing = count - len(held)
        origin = rng.integers(0, len(held), missing)
        step = rng.normal(size=(missing, vectors.shape[1])).astype(np.float32)
        step *= NOISE / np.linalg.norm(step, axis=1, keepdims=True)
        copies = vectors[origin] + step
        copies /= np.linalg.norm(copies, axis=1, keepdims=True)
        held = held + [
            Text(str(uuid.UUID(int=place, version=4)), f"{held[of].text} ({place})") for place, of in enumerate(origin)
        ]
        vectors = np.concatenate([vectors, copies])
    return held, vectors


def kept_vectors(embedder: Embedder, held: Sequence[Text]) -> np.ndarray:
    """The vectors of texts, from the file of an earlier run as far as that goes."""
    key = hashlib.md5("\n".join(each.text for each in held[:1_000]).encode()).hexdigest()[:8]
    file = places.LOCAL / "bench" / "vectors" / f"{embedder.model}-{key}.npy"
    known = load(file, embedder.dimensions)
    if len(known) < len(held):
        file.parent.mkdir(parents=True, exist_ok=True)
        say(f"  embedding {len(held) - len(known):,} sentences, once")
        for first in range(len(known), len(held), 10_000):
            part = embedder.embed([each.text for each in held[first : first + 10_000]])
            known = np.concatenate([known, part])
            save(file, known)
    return known[: len(held)]


def load(file: Path, dimensions: int) -> np.ndarray:
    """The vectors of a file; none if it does not exist, or was cut off."""
    if file.exists():
        try:
            found = np.load(file)
        except (ValueError, EOFError, OSError) as error:
            say(f"  {file} cannot be read, and is begun anew: {error}")
        else:
            if found.ndim == 2 and found.shape[1] == dimensions:
                return np.asarray(found)
    return np.empty((0, dimensions), dtype=np.float32)


def save(file: Path, vectors: np.ndarray) -> None:
    """Writes a file so that it never exists in part: embedding again would take hours."""
    beside = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with beside.open("wb") as output:
            np.save(output, vectors)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)


def store(settings: Settings, embedder: Embedder, held: Sequence[Text], vectors: np.ndarray) -> None:
    """Stores texts with their vectors, as persist_text and embed_text do, without the workers' own work."""
    engine = session.connect_engine(settings.database_url(), "benchmark", timeout_ms=0)
    with engine.begin() as connection:
        embeddings.register_model(connection, embedder.model, embedder.dimensions)
    for first in range(0, len(held), PORTION):
        part = held[first : first + PORTION]
        records = [
            Record(each.id, None, each.text, None, 1_700_000_000_000, 0, first + place)
            for place, each in enumerate(part)
        ]
        lease = str(uuid.uuid4())
        with engine.begin() as connection:
            stored = commands.persist(connection, records, reserved_seconds=60)
            jobs = outbox.claim_jobs(connection, stored.jobs, lease, 60)
        rows = Vectors(
            [uuid.UUID(each.id).bytes for each in part],
            [hashlib.md5(each.text.encode()).digest() for each in part],
            [0] * len(part),
            [(0, len(each.text)) for each in part],
            vectors[first : first + len(part)],
        )
        with engine.begin() as connection:
            embeddings.finish_with_vectors(connection, jobs, lease, embedder.model, Embedded(rows))
    engine.dispose()
