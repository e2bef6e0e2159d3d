"""Keeping up: the vector index behind writers that embed real texts with the real model, as fast as these cores can."""

import argparse
import contextlib
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from benchmarks import contestants, publish, texts, watch
from benchmarks.arguments import whole
from benchmarks.bench import Bench, Live, turns
from benchmarks.beside import beside
from benchmarks.cases.indexing import WITH, WITHOUT
from benchmarks.contestants import Contestant
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder import Embedder, load_provider
from stack.progress import say

ABOUT = "MiniLM at full speed: rows that no index holds yet, and what the index costs the rate"

UNINDEXED = """
    SELECT count(*) FROM message_embeddings
    WHERE id >= coalesce((SELECT max(to_id) FROM vector_index_parts WHERE state = 'ready'), 1)
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=60_000)
    parser.add_argument("--runs", type=whole, default=3)
    parser.add_argument("--workers", type=whole, default=os.cpu_count() or 2, help="embed workers")


def quick(given: argparse.Namespace) -> None:
    given.records, given.runs = 1_000, 1


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    model = load_provider(replace(bench.servers.settings, embedding_provider="minilm"))
    sent = texts.sentences(given.records)
    outcome = bench.begin(
        "keeping_up", f"{len(sent):,} sentences, all-MiniLM-L6-v2 int8, {given.workers} workers", given
    )
    entered = [
        contestants.as_shipped(embed_workers=given.workers),
        contestants.as_shipped(embed_workers=given.workers, vector_index="off"),
    ]
    named = [replace(each, name=name) for each, name in zip(entered, (WITH, WITHOUT), strict=True)]
    for number, contestant in turns(named, given.runs):
        measure(bench, outcome, contestant, sent, model)
        say(f"  round {number}: {contestant.name}: {outcome.figures[contestant.name]['running /s'][-1]:.1f}/s")
    outcome.ratios = [Ratio("running /s", WITH, WITHOUT, "0.75")]
    outcome.notes.append("aim: fewer than 20,000 rows that no index holds, counted twice a second")
    return outcome


def measure(bench: Bench, outcome: Outcome, contestant: Contestant, sent: list[Text], model: Embedder) -> None:
    changes: dict[str, object] = {"embedding_provider": "minilm"}
    with bench.topic([]) as topic, bench.live(contestant, topic, embedder=model, changes=changes) as live:
        live.warm_up()
        with counted(bench, live) as most:
            began = time.time()
            publish.preload(live.settings, topic, sent)
            live.wait_for(len(sent) + len(live.warm), 120 + len(sent) / 20)
        found = watch.commits(live.connection, contestant.layout)
        watch.verify(live.connection, contestant.layout, [*live.warm, *sent], model)
    figures = {"running /s": len(sent) / (found.last - began)}
    if contestant.name == WITH:
        figures["most rows unindexed"] = float(max(most))
    outcome.add(contestant.name, **figures)


@contextlib.contextmanager
def counted(bench: Bench, live: Live) -> Iterator[list[float]]:
    """While the block runs, counts the rows that no index holds, into the list."""
    found: list[float] = []

    def look(over: threading.Event) -> None:
        with contextlib.closing(bench.servers.connect(live.settings.database_name)) as connection:
            while True:
                found.append(watch.number(connection, UNINDEXED))
                if over.wait(0.5):
                    return

    with beside("the counting of rows that no index holds", look):
        yield found
