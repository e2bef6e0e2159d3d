"""Quality: the int8 model against its own fp32, and the whole pipeline against exact search with fp32.

Known items: the query is a package's one-line synopsis, the document its long description without it.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import requests

from benchmarks import contestants, publish, texts
from benchmarks.arguments import whole
from benchmarks.bench import Bench
from benchmarks.cases.search import nearest, wait_until_settled
from benchmarks.report import Outcome, Ratio
from embedder import build_minilm, load_provider, minilm_files
from embedder.minilm import MiniLM

ABOUT = "int8 against fp32: cosine, and hits@10 of known items"

LIMIT = 10


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--documents", type=whole, default=5_000)
    parser.add_argument("--queries", type=whole, default=1_000)
    parser.add_argument("--compared", type=whole, default=1_000, help="texts whose int8 and fp32 vectors are compared")


def quick(given: argparse.Namespace) -> None:
    given.documents, given.queries, given.compared = 200, 100, 50


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    outcome = bench.begin("quality", "known items among Debian's descriptions", given)
    items = texts.synopses(given.documents)
    int8 = load_provider(replace(bench.servers.settings, embedding_provider="minilm"))
    fp32 = MiniLM(2, build_minilm.build(minilm_files.FP32))
    some = [document.text for document, _ in items[: given.compared]]
    cosines = np.sum(int8.embed(some) * fp32.embed(some), axis=1)
    outcome.add("int8 against fp32", **{"mean cosine": float(cosines.mean()), "least cosine": float(cosines.min())})
    queries = [synopsis for _, synopsis in items[: given.queries]]
    exact = hits(exact_search(fp32, [document.text for document, _ in items], queries), range(len(queries)))
    outcome.add("exact search, fp32", **{f"hits@{LIMIT}": exact})
    changes: dict[str, object] = {"embedding_provider": "minilm", "embed_workers": 2}
    documents = [document for document, _ in items]
    with bench.topic([]) as topic, bench.live(contestants.as_shipped(), topic, embedder=int8, changes=changes) as live:
        publish.preload(live.settings, topic, documents)
        live.wait_for(len(documents), 60 + len(documents) / 5)
        wait_until_settled(live)
        url = f"http://127.0.0.1:{live.settings.search_api_port}/embeddings/search"
        places = {document.id: place for place, document in enumerate(documents)}
        found = []
        with requests.Session() as http:
            http.trust_env = False
            for query in queries:
                answer = http.post(url, json={"query": query, "limit": LIMIT}, timeout=30)
                answer.raise_for_status()
                found.append([places[hit["id"]] for hit in answer.json()["results"]])
    outcome.add("the whole pipeline", **{f"hits@{LIMIT}": hits(found, range(len(queries)))})
    outcome.ratios = [Ratio(f"hits@{LIMIT}", "the whole pipeline", "exact search, fp32", "0.98")]
    outcome.notes.append("aim: mean cosine at least 0.99")
    return outcome


def exact_search(model: MiniLM, documents: Sequence[str], queries: Sequence[str]) -> list[list[int]]:
    """For each query, the documents of the best passages, each document once, best first."""
    passages, owners = [], []
    for place, document in enumerate(documents):
        for start, end in model.passages(document):
            passages.append(document[start:end])
            owners.append(place)
    vectors, asked = model.embed(passages), model.embed(list(queries))
    found = []
    for query, places in zip(asked, nearest(asked, vectors, 4 * LIMIT), strict=True):
        ordered = sorted(places, key=lambda place: -float(query @ vectors[place]))
        found.append(list(dict.fromkeys(owners[place] for place in ordered))[:LIMIT])
    return found


def hits(found: Sequence[Sequence[int]], wanted: Sequence[int]) -> float:
    """The share of queries whose own document is among the first ten."""
    return sum(place in places for place, places in zip(wanted, found, strict=True)) / len(wanted)
