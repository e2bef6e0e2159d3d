"""Search: latency and rate by the number of rows, at rest and while texts come in; recall; plain SQL beside it.

Rows are stored by the product's own commands, with vectors that were embedded once and kept (`.local/bench/vectors`).
"""

import argparse
import contextlib
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import requests

from benchmarks import contestants, corpus, floors, texts, watch
from benchmarks.arguments import more_than_none, whole, wholes
from benchmarks.bench import Bench, Live
from benchmarks.beside import beside
from benchmarks.contestants import HNSW
from benchmarks.publish import Pacer
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder import Embedder, load_provider
from settings import Settings
from stack.progress import say

ABOUT = "latency, rate and recall of searches, by rows, with and without texts coming in"

LIMIT = 10
SETTLED_SECONDS = 1_800.0  # which an index may take
# By the recall they reach: pgvector's default, and what the product asks for.
PLAIN_SQL = {"plain SQL on HNSW": 40, "plain SQL, same ef_search": Settings.index_ef_search}

# Variants of the same searches: with a time that all texts pass, and by words instead of meaning.
KINDS: dict[str, dict[str, str]] = {
    "": {},
    ", from a time on": {"since": "2000-01-01T00:00:00Z"},
    ", by words": {"mode": "keyword"},
}


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=wholes, default="10000,50000,200000")
    parser.add_argument("--queries", type=whole, default=300, help="queries for each figure")
    parser.add_argument("--clients", type=whole, default=4, help="at once, for the rate")
    parser.add_argument("--ingest", type=more_than_none, default=500.0, help="texts a second that come in meanwhile")
    parser.add_argument(
        "--embedder", default="minilm", choices=["minilm", "hashing"], help="hashing: quick, and without a meaning"
    )
    parser.add_argument(
        "--noise", action="store_true", help="fill up with noisy copies of real vectors beyond 200,000, or what is here"
    )


def quick(given: argparse.Namespace) -> None:
    given.rows, given.queries, given.ingest, given.embedder = "5000", 50, 50.0, "hashing"


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    wanted = [int(size) for size in given.rows.split(",")]
    embedder = load_provider(replace(bench.servers.settings, embedding_provider=given.embedder))
    everything, vectors = corpus.sentences(embedder, max(wanted) + given.queries, noise=given.noise)
    sizes = held_sizes(wanted, len(everything) - given.queries)
    title = f"the {LIMIT} nearest of {' and '.join(f'{size:,}' for size in sizes)}, {given.embedder}"
    outcome = bench.begin("search", title, given)
    if max(sizes) < max(wanted):
        outcome.notes.append(
            f"asked for {given.rows} rows, and only {max(sizes):,} sentences are here: where `apt-get update` has "
            "fetched Debian's descriptions there are more than 200,000; --noise fills up beyond what is here"
        )
    queries, query_vectors = everything[: given.queries], vectors[: given.queries]
    for size in sizes:
        held, held_vectors = everything[given.queries :][:size], vectors[given.queries :][:size]
        exact = nearest(query_vectors, held_vectors, LIMIT)
        truth = [{held[place].id for place in row} for row in exact]
        whole_pipeline(bench, outcome, given, embedder, held, held_vectors, queries, truth)
        plain_sql(bench, outcome, held, held_vectors, query_vectors, truth)
        outcome.ratios = [
            *outcome.ratios,
            Ratio(
                "p50 ms",
                f"{len(held):,} rows, HTTP",
                f"{len(held):,} rows, plain SQL, same ef_search",
                "1.5 + embedding",
            ),
        ]
    began = time.perf_counter()
    for each in queries:
        embedder.embed([each.text])
    outcome.add("embedding a query", **{"p50 ms": 1000 * (time.perf_counter() - began) / len(queries)})
    outcome.notes.append(
        f"HTTP: POST /embeddings/search; recall@{LIMIT} against an exact search over the same vectors; rate with "
        f"{given.clients} clients"
    )
    return outcome


def held_sizes(wanted: Sequence[int], there: int) -> list[int]:
    """The numbers of rows that are possible here, each once. Raises Unfinished if there are none."""
    if there < 1:
        raise watch.Unfinished("there are no more sentences here than queries are asked for: --queries with fewer")
    return sorted({min(size, there) for size in wanted})


def nearest(queries: np.ndarray, vectors: np.ndarray, limit: int) -> np.ndarray:
    """The places of the vectors nearest to each query, found exactly. In portions, to bound the memory."""
    found = []
    for query in np.array_split(queries, max(1, len(queries) // 50)):
        scores = query @ vectors.T
        found.append(np.argpartition(-scores, min(limit, scores.shape[1] - 1), axis=1)[:, :limit])
    return np.concatenate(found)


def whole_pipeline(
    bench: Bench,
    outcome: Outcome,
    given: argparse.Namespace,
    embedder: Embedder,
    held: Sequence[Text],
    vectors: np.ndarray,
    queries: Sequence[Text],
    truth: Sequence[set[str]],
) -> None:
    changes: dict[str, object] = {"embedding_provider": given.embedder}
    who = f"{len(held):,} rows, HTTP"
    contestant = contestants.as_shipped()
    with bench.topic([]) as topic, bench.live(contestant, topic, embedder=embedder, changes=changes) as live:
        began = time.monotonic()
        corpus.store(live.settings, embedder, held, vectors)
        say(f"  {len(held):,} rows are in the database after {time.monotonic() - began:.0f} s")
        indexed_after = wait_until_settled(live)
        for kind, narrowed in KINDS.items():
            asked = ask_all(live, queries, narrowed)
            found: dict[str, float] = {}
            if not kind:
                found = {"searches /s": rate(live, queries, given.clients), "indexed after s": indexed_after}
            if "mode" not in narrowed:
                found[f"recall@{LIMIT}"] = recall(asked.found, truth)
            outcome.add(who + kind, **percentiles(asked.milliseconds), **found)
        with ingesting(live, given.ingest):
            for kind, narrowed in KINDS.items():
                asked = ask_all(live, queries, narrowed)
                found = {"searches /s": rate(live, queries, given.clients)} if not kind else {}
                if "mode" not in narrowed:
                    found[f"recall@{LIMIT}"] = recall_of_held(asked.found, truth, held)
                outcome.add(f"{who}{kind}, {given.ingest:.0f}/s coming in", **percentiles(asked.milliseconds), **found)


class Asked:
    """The answers of a series of searches."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.found: list[list[str]] = []


def ask_all(live: Live, queries: Sequence[Text], narrowed: Mapping[str, str]) -> Asked:
    """One search after the other, by one client that keeps its connection."""
    asked = Asked()
    url = f"http://127.0.0.1:{live.settings.search_api_port}/embeddings/search"
    with requests.Session() as http:
        http.trust_env = False
        for each in queries:
            began = time.perf_counter()
            answer = http.post(url, json={"query": each.text, "limit": LIMIT, **narrowed}, timeout=30)
            asked.milliseconds.append(1000 * (time.perf_counter() - began))
            answer.raise_for_status()
            asked.found.append([hit["id"] for hit in answer.json()["results"]])
    return asked


def rate(live: Live, queries: Sequence[Text], clients: int) -> float:
    """Searches a second with `clients` at once. Raises HTTPError if a search is refused."""
    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask_all, live, queries[number::clients], KINDS[""]) for number in range(clients)]
        answered = sum(len(each.result().found) for each in asking)
    return answered / (time.perf_counter() - began)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(milliseconds, [50, 95, 99])
    return {"p50 ms": float(p50), "p95 ms": float(p95), "p99 ms": float(p99)}


def recall(found: Sequence[Sequence[str]], truth: Sequence[set[str]]) -> float:
    return sum(len(set(a) & b) for a, b in zip(found, truth, strict=True)) / sum(len(each) for each in truth)


def recall_of_held(found: Sequence[Sequence[str]], truth: Sequence[set[str]], held: Sequence[Text]) -> float:
    """Recall when new texts may be among the answers: if k held texts were found, they are compared with the k best."""
    known = {each.id for each in held}
    kept = [[key for key in each if key in known] for each in found]
    return sum(len(set(a) & b) for a, b in zip(kept, truth, strict=True)) / max(1, sum(map(len, kept)))


@contextlib.contextmanager
def ingesting(live: Live, per_second: float) -> Iterator[None]:
    """Texts come in at an even rate until the block ends."""

    def send(over: threading.Event) -> None:
        with contextlib.closing(Pacer(live.settings, live.settings.kafka_topic, per_second)) as pacer:
            number = 0
            while not over.is_set():
                pacer.run(list(texts.made_up(max(1, int(per_second)), seed=10_000 + number)))
                number += 1

    with beside("the sender of texts", send):
        time.sleep(2)
        yield


def wait_until_settled(live: Live) -> float:
    """Waits until the search API says that everything is indexed; returns the seconds that it took."""
    url = f"http://127.0.0.1:{live.settings.search_api_port}/status"
    began = time.monotonic()
    with requests.Session() as http:
        http.trust_env = False
        while True:
            with contextlib.suppress(requests.ConnectionError):
                said = http.get(url, timeout=30).json()
                if said.get("status") == "up_to_date" and settled(said):
                    return time.monotonic() - began
            if (ended := live.problem()) is not None or time.monotonic() - began > SETTLED_SECONDS:
                raise watch.Unfinished(ended or f"the index is not complete after {SETTLED_SECONDS:.0f} s")
            time.sleep(0.25)


def settled(status: dict[str, object]) -> bool:
    """Whether all vectors are where searches will find them from now on, by what /status says."""
    index = status.get("index")
    return isinstance(index, dict) and bool(index.get("settled", True)) and not index.get("unindexed")


def plain_sql(
    bench: Bench,
    outcome: Outcome,
    held: Sequence[Text],
    vectors: np.ndarray,
    queries: np.ndarray,
    truth: Sequence[set[str]],
) -> None:
    """The floor: one HNSW index over everything, built at the end, asked by SQL."""
    with floors.table(bench, "UUID", vectors.shape[1]) as connection, connection.cursor() as cursor:
        floors.copy_into(cursor, held, vectors)
        graph_mb = max(512, len(held) * 2 // 2**10)  # beyond it the graph would grow on disk, for hours
        cursor.execute(f"SET maintenance_work_mem = '{graph_mb}MB'")
        began = time.perf_counter()
        cursor.execute(HNSW)
        built = time.perf_counter() - began
        cursor.execute("ANALYZE documents")
        for who, ef_search in PLAIN_SQL.items():
            cursor.execute("SELECT set_config('hnsw.ef_search', %s, false)", (str(ef_search),))
            milliseconds, found = [], []
            for vector in queries:
                literal = json.dumps([round(float(number), 7) for number in vector])
                began = time.perf_counter()
                cursor.execute(
                    "SELECT key::text, message FROM documents ORDER BY embedding <=> %s::halfvec LIMIT %s",
                    (literal, LIMIT),
                )
                found.append([str(uuid.UUID(row[0])) for row in cursor.fetchall()])
                milliseconds.append(1000 * (time.perf_counter() - began))
            outcome.add(
                f"{len(held):,} rows, {who}",
                **percentiles(milliseconds),
                **{f"recall@{LIMIT}": recall(found, truth), "indexed after s": built},
            )
