"""What nothing built on these parts can beat: the model alone, COPY alone, SQL alone, the disk alone; and a rate that
only the machine changes."""

import contextlib
import io
import os
import struct
import tempfile
import time
import uuid
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psycopg2

from benchmarks.bench import Bench
from benchmarks.contestants import DOCUMENTS_TABLE, HNSW
from benchmarks.report import Outcome
from benchmarks.texts import Text, made_up
from db.copy import HEADER, TRAILER
from embedder import Embedder
from embedder.hashing import HashingEmbedder

BATCH = 500

STARTING_SECONDS = 3.0  # of the processes of steady_rates

DISK_WRITES, DISK_BYTES, DISK_PAUSE_SECONDS = 200, 8_192, 0.02


def copy_rate(bench: Bench, outcome: Outcome, texts: Sequence[Text], embedder: Embedder) -> None:
    """COPY of ready-made rows into a table with nothing but its primary key, one commit for 500 of them."""
    vectors = np.concatenate([embedder.embed([each.text for each in texts[at : at + BATCH]]) for at in steps(texts)])
    with table(bench, "UUID", embedder.dimensions) as connection, connection.cursor() as cursor:
        outcome.add("floor: COPY", **{"running /s": len(texts) / copy_into(cursor, texts, vectors)})


def disk_waits(folder: Path) -> list[float]:
    """How many ms each of some writes to a file in `folder` waits for the disk, while nothing else is done: a commit
    waits at least as long."""
    waits = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(DISK_WRITES):
            time.sleep(DISK_PAUSE_SECONDS)
            file.write(bytes(DISK_BYTES))
            file.flush()
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            waits.append(1000 * (time.perf_counter() - began))
    return waits


def insert_rate(bench: Bench, texts: Sequence[Text], vectors: np.ndarray) -> float:
    """Rows a second if each goes into one HNSW index as it comes, in commits of 500."""
    with table(bench, "UUID", vectors.shape[1]) as connection, connection.cursor() as cursor:
        cursor.execute(HNSW)
        return len(texts) / copy_into(cursor, texts, vectors)


def copy_into(cursor: psycopg2.extensions.cursor, texts: Sequence[Text], vectors: np.ndarray) -> float:
    """Copies rows into `documents`; returns the seconds that PostgreSQL took, not those of making the rows."""
    took = 0.0
    for at in steps(texts):
        rows = [
            line(text, vector) for text, vector in zip(texts[at : at + BATCH], vectors[at : at + BATCH], strict=True)
        ]
        content = io.BytesIO(HEADER + b"".join(rows) + TRAILER)
        began = time.perf_counter()
        cursor.copy_expert("COPY documents FROM STDIN WITH (FORMAT binary)", content)
        took += time.perf_counter() - began
    return took


def line(text: Text, vector: np.ndarray) -> bytes:
    """A row in COPY's binary format: id, text, vector."""
    message = text.text.encode()
    halves = vector.astype(">f2").tobytes()
    return b"".join(
        (
            struct.pack("!hi16s", 3, 16, uuid.UUID(text.id).bytes),
            struct.pack(f"!i{len(message)}s", len(message), message),
            struct.pack("!ihh", 4 + len(halves), len(vector), 0),
            halves,
        )
    )


@contextlib.contextmanager
def table(bench: Bench, id_type: str, dimensions: int):  # type: ignore[no-untyped-def]
    """A connection to a database with an empty table `documents`."""
    name = f"floor_{next(bench.numbers)}"
    bench.servers.create_database(name)
    connection = bench.servers.connect(name)
    try:
        with connection.cursor() as cursor:
            cursor.execute(DOCUMENTS_TABLE.format(id_type=id_type, dimensions=dimensions))
        yield connection
    finally:
        connection.close()
        bench.servers.drop_database(name)


def steps(texts: Sequence[Text]) -> range:
    return range(0, len(texts), BATCH)


def model_rate(texts: Sequence[str], processes: int) -> float:
    """Texts a second of the model alone, in `processes` of one thread, each with an even share of the texts.

    Loading is not counted: each process loads and embeds one text before all begin together.
    """
    context = get_context("spawn")
    ready = context.Barrier(processes + 1)
    done = context.Barrier(processes + 1)
    shares = [list(texts[number::processes]) for number in range(processes)]
    workers = [context.Process(target=embed_share, args=(share, ready, done)) for share in shares]
    for worker in workers:
        worker.start()
    ready.wait(120)
    began = time.perf_counter()
    done.wait()
    took = time.perf_counter() - began
    for worker in workers:
        worker.join()
    return len(texts) / took


def steady_rates(processes: int, windows: int, seconds: float) -> list[float]:
    """Texts a second of hashing the same texts again and again, in each of `windows` of so many seconds. Nothing in it
    changes with time, so where these rates differ the machine does."""
    begin = time.monotonic() + STARTING_SECONDS
    with get_context("spawn").Pool(processes) as pool:
        shares = pool.starmap(hash_on, [(begin, windows, seconds)] * processes, chunksize=1)
    return [sum(counts) / seconds for counts in zip(*shares, strict=True)]


def hash_on(begin: float, windows: int, seconds: float) -> list[int]:
    """How many texts this process hashes in each window; the first one begins at `begin` of the monotonic clock."""
    embedder, hashed = HashingEmbedder(), [each.text for each in made_up(BATCH)]
    counts = [0] * windows
    time.sleep(max(0.0, begin - time.monotonic()))
    while (window := int((time.monotonic() - begin) / seconds)) < windows:
        embedder.embed(hashed)
        counts[window] += BATCH
    return counts


def embed_share(texts: list[str], ready, done) -> None:  # type: ignore[no-untyped-def]
    from embedder.minilm import MiniLM

    model = MiniLM(1)
    model.embed(texts[:1])
    ready.wait()
    for at in range(0, len(texts), 64):
        pieces = [text[start:end] for text in texts[at : at + 64] for start, end in model.passages(text)]
        model.embed(pieces)
    done.wait()
