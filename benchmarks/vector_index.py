"""The vector index by itself: `.venv/bin/python -m benchmarks.vector_index`, without Kafka and workers.

Builds parts and then one index over everything, with the product's own builder, and measures in each state how long a
search takes, and how many of the true neighbours it finds. Rows put one by one into one HNSW index are timed in the
same run, since on a machine that does other work too only the ratio says something.
"""

import argparse
import time
import uuid
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from sqlalchemy import Engine, text

from benchmarks import corpus, servers
from benchmarks.texts import Text
from db import index_catalogue, schema, session, vector_index, vector_search
from db.index_plan import Range
from embedder.minilm import MiniLM
from settings import Settings
from stack.progress import say

LIMIT = 10
ROW_BY_ROW = 3_000
EF_SEARCHES = (40, 80, 120, 160, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=200)
    given = parser.parse_args()
    embedder = MiniLM(2)
    held, vectors = corpus.sentences(embedder, given.rows + given.queries, noise=True)
    with servers.started() as running:
        running.create_database("vectors")
        settings = Settings(
            database_host="127.0.0.1", database_port=running.settings.database_port, database_name="vectors"
        )
        schema.upgrade(settings)
        corpus.store(settings, embedder, held[: given.rows], vectors[: given.rows])
        measure(settings, embedder.model, held[: given.rows], vectors[: given.rows], vectors[given.rows :])


def measure(settings: Settings, model: str, held: Sequence[Text], vectors: np.ndarray, queries: np.ndarray) -> None:
    """Prints a line for each state of the index: nothing, parts and an open one, everything in one."""
    engine = session.connect_engine(settings.database_url(), "benchmark", timeout_ms=0)
    rows = len(held)
    ids = [str(uuid.UUID(each.id)) for each in held]
    truth = [{ids[place] for place in np.argpartition(-(vectors @ query), LIMIT)[:LIMIT].tolist()} for query in queries]
    floor = row_by_row(engine, vectors[:ROW_BY_ROW])
    say(f"row by row into one HNSW index: {floor:,.0f} rows/s")
    ask(engine, model, queries[:20], truth, "no index, exact scan", None)

    asked = index_catalogue.Model(model, vectors.shape[1], True)
    seal = min(settings.index_seal_rows, rows // 20)
    marks = [1, rows - 5 * seal, *range(rows - 4 * seal, rows, seal)]  # the last of these is where the open part begins
    timed = []
    for start, end in pairwise(marks):
        timed.append((end - start, build(settings, asked, Range(start, end, end - start))))
    for size, seconds in timed[:2]:
        say(f"part of {size:,}: {size / seconds:,.0f} rows/s = {size / seconds / floor:.1f} x row by row")
    compare(engine, model, queries, truth, f"{len(timed)} parts and {seal:,} open rows")

    whole = build(settings, asked, Range(1, rows + 1, rows))
    say(f"all {rows:,} in one: {whole:.1f} s, {rows / whole:,.0f} rows/s = {rows / whole / floor:.1f} x row by row")
    compare(engine, model, queries, truth, "one part")
    ask_plain(engine, model, queries, vectors.shape[1], rows)
    engine.dispose()


def row_by_row(engine: Engine, vectors: np.ndarray) -> float:
    """Rows a second if each goes into one HNSW index as it comes, in commits of 500."""
    literals = [vector_search.literal(vector.tolist()) for vector in vectors]
    with engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE plain (id INTEGER, embedding HALFVEC({vectors.shape[1]}))"))
        connection.execute(text("CREATE INDEX ON plain USING hnsw (embedding halfvec_cosine_ops)"))
    began = time.perf_counter()
    for first in range(0, len(literals), 500):
        with engine.begin() as connection:
            connection.execute(
                text("INSERT INTO plain SELECT 1, v::halfvec FROM unnest(:vectors ::text[]) AS v"),
                {"vectors": literals[first : first + 500]},
            )
    took = time.perf_counter() - began
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE plain"))
    return len(vectors) / took


def build(settings: Settings, model: index_catalogue.Model, wanted: Range) -> float:
    began = time.perf_counter()
    with vector_index.builder(settings) as connection:
        assert connection is not None, "another builder is at work"
        vector_index.build(connection, model, wanted, settings, quiet=True)
    return time.perf_counter() - began


def compare(engine: Engine, model: str, queries: np.ndarray, truth: Sequence[set[str]], state: str) -> None:
    for ef in EF_SEARCHES:
        ask(engine, model, queries, truth, state, ef)


def ask(engine: Engine, model: str, queries: np.ndarray, truth: Sequence[set[str]], state: str, ef: int | None) -> None:
    settings = Settings(index_ef_search=ef or Settings.index_ef_search)
    found, milliseconds = 0, []
    with engine.connect() as connection:
        for query, nearest in zip(queries, truth, strict=False):
            began = time.perf_counter()
            hits = vector_search.semantic(connection, settings, query.tolist(), model, limit=LIMIT)
            milliseconds.append(1000 * (time.perf_counter() - began))
            connection.rollback()
            found += len({hit["id"] for hit in hits} & nearest)
    tell(state if ef is None else f"{state}, ef_search {ef}", milliseconds, found / (LIMIT * len(milliseconds)))


def ask_plain(engine: Engine, model: str, queries: np.ndarray, dimensions: int, rows: int) -> None:
    """What a search costs in SQL when it does nothing but read one index, at the same ef_search."""
    milliseconds = []
    with engine.connect() as connection:
        connection.execute(text(f"SET hnsw.ef_search = {Settings.index_ef_search}"))
        for query in queries:
            began = time.perf_counter()
            connection.execute(
                text(f"""
                    SELECT message_id FROM message_embeddings
                    WHERE model = :model AND id >= 1 AND id < {rows + 1}
                    ORDER BY embedding::halfvec({dimensions}) <=> :query ::halfvec({dimensions}) LIMIT {LIMIT}
                """),
                {"model": model, "query": vector_search.literal(query.tolist())},
            ).all()
            milliseconds.append(1000 * (time.perf_counter() - began))
    tell(f"one part, plain SQL, ef_search {Settings.index_ef_search}", milliseconds, None)


def tell(state: str, milliseconds: Sequence[float], recall: float | None) -> None:
    p50, p95 = np.percentile(milliseconds, [50, 95])
    found = "" if recall is None else f", recall@{LIMIT} {recall:.4f}"
    say(f"{state}: p50 {p50:.1f} ms, p95 {p95:.1f} ms{found}")


if __name__ == "__main__":
    main()
