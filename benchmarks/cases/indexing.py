"""Indexing: what a vector index costs while texts come in, and when everything is in it.

With the stub embedder: a burst, with and without the index; Pathway writing into a table with an HNSW index; and rows
put into one HNSW index one by one.
"""

import argparse
import time

from benchmarks import contestants, floors, texts, watch
from benchmarks.arguments import whole
from benchmarks.bench import Bench, installed, turns
from benchmarks.cases.search import wait_until_settled
from benchmarks.contestants import Contestant
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder.hashing import HashingEmbedder
from stack.progress import say

ABOUT = "a burst with the vector index, without it, and into one HNSW index row by row"

WITHOUT, WITH = "without an index", "with the index"
ROW_BY_ROW = "floor: row by row into HNSW"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=100_000)
    parser.add_argument("--few", type=whole, default=10_000, help="records for Pathway with HNSW, and for row by row")
    parser.add_argument("--runs", type=whole, default=3)


def quick(given: argparse.Namespace) -> None:
    given.records, given.few, given.runs = 10_000, 2_000, 1


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    outcome = bench.begin("indexing", f"a burst of {given.records:,} texts, hashing embedder", given)
    sent = list(texts.made_up(given.records))
    few = sent[: given.few]
    everything = (*contestants.CORE, "text-api", "search-api")
    wanted = [
        contestants.ours(WITHOUT, everything, {"vector_index": "off"}),
        contestants.ours(WITH, everything),
        # Without a bound it takes in all records at once, and nothing is visible until a single commit at the end.
        contestants.pathway(name="Pathway with HNSW", backlog=min(1_000, given.few // 4)),
    ]
    entered = installed(outcome, wanted)
    with bench.topic(sent) as topic, bench.topic(few) as small:
        for number, contestant in turns(entered, given.runs):
            peer = contestant.name.startswith("Pathway")
            once(bench, outcome, contestant, few if peer else sent, small if peer else topic)
            if contestant is entered[0]:
                vectors = HashingEmbedder().embed([each.text for each in few])
                outcome.add(ROW_BY_ROW, **{"indexed /s": floors.insert_rate(bench, few, vectors)})
            say(f"  round {number}: {contestant.name}")
    outcome.ratios = [
        Ratio("searchable /s", WITH, WITHOUT, "0.9"),
        Ratio("indexed /s", WITH, ROW_BY_ROW, "4"),
        Ratio("searchable /s", WITH, "Pathway with HNSW", "10"),
        Ratio("indexed /s", WITH, "Pathway with HNSW", "4"),
    ]
    outcome.notes.append("both rates once running: from the first visible vector on")
    outcome.details["contestants"] = {each.name: dict(each.about) for each in entered}
    return outcome


def once(bench: Bench, outcome: Outcome, contestant: Contestant, sent: list[Text], topic: str) -> None:
    embedder = HashingEmbedder()
    peer = contestant.name.startswith("Pathway")
    with bench.live(contestant, topic, embedder=embedder, indexed=peer) as live:
        live.wait_for(len(sent), 120 + len(sent) / 100)
        if contestant.name == WITH:
            wait_until_settled(live)
        settled = time.time()
        found = watch.commits(live.connection, contestant.layout)
        watch.verify(live.connection, contestant.layout, sent, embedder)
    outcome.add(contestant.name, **{"searchable /s": found.running_rate})
    if contestant.name == WITH:
        outcome.add(WITH, **{"indexed /s": len(sent) / (settled - found.first)})
    elif peer:  # a row that the peer has written is in the index
        outcome.add(contestant.name, **{"indexed /s": found.running_rate})
