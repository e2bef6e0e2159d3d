"""Throughput with the real model: real texts that fit its window, against the model alone on the same cores.

Everything runs and has loaded the model before the texts are sent. The time goes from the first text sent to the last
vector, so it includes the sending, the waiting for full batches and the idle core at the end.
"""

import argparse
import os
import time
from dataclasses import replace

from benchmarks import contestants, floors, publish, texts, watch
from benchmarks.arguments import some_of, whole
from benchmarks.bench import Bench, installed, turns
from benchmarks.contestants import Contestant
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder import Embedder, load_provider
from stack.progress import say

ABOUT = "texts a second with MiniLM, beside Pathway, a short script and the model alone"

OF = ("shipped", "lean", "pathway", "script")

FLOOR = "floor: the model alone"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=5_000)
    parser.add_argument("--runs", type=whole, default=3)
    parser.add_argument("--workers", type=whole, default=os.cpu_count() or 2, help="embed workers, threads, processes")
    parser.add_argument("--of", type=some_of(OF), default="shipped,pathway,script", help=f"some of {','.join(OF)}")


def quick(given: argparse.Namespace) -> None:
    given.records, given.runs = 400, 1


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    workers = given.workers
    choices = {
        "shipped": lambda: contestants.as_shipped(embed_workers=workers),
        "lean": lambda: contestants.lean(embed_workers=workers),
        "pathway": lambda: contestants.pathway(threads=workers),
        "script": lambda: contestants.script(threads=workers),
    }
    model = load_provider(replace(bench.servers.settings, embedding_provider="minilm"))
    # A longer text would be several passages here, and cut off by the others.
    sent = [each for each in texts.debian(2 * given.records) if len(model.passages(each.text)) == 1][: given.records]
    outcome = bench.begin("minilm", f"{len(sent):,} real texts, all-MiniLM-L6-v2 int8, {workers} workers", given)
    entered = installed(outcome, [choices[name]() for name in given.of.split(",")])
    for number, contestant in turns(entered, given.runs):
        if contestant is entered[0]:
            outcome.add(FLOOR, **{"running /s": floors.model_rate([each.text for each in sent], workers)})
        measure(bench, outcome, contestant, sent, model)
        say(f"  round {number}: {contestant.name}: {outcome.figures[contestant.name]['running /s'][-1]:.1f}/s")
    outcome.ratios = [
        Ratio("running /s", "as shipped", FLOOR, "0.92"),
        Ratio("running /s", "as shipped", "Pathway"),
        Ratio("running /s", "as shipped", "30-line script"),
    ]
    outcome.notes.append(
        f"characters a text: {average_length(sent):.0f}; MB: the sum of the largest of each of its processes"
    )
    outcome.details["contestants"] = {each.name: dict(each.about) for each in entered}
    return outcome


def measure(bench: Bench, outcome: Outcome, contestant: Contestant, sent: list[Text], model: Embedder) -> None:
    changes: dict[str, object] = {"embedding_provider": "minilm"}
    with bench.topic([]) as topic, bench.live(contestant, topic, embedder=model, changes=changes) as live:
        live.warm_up()
        live.meter.restart()
        began = time.time()
        publish.preload(live.settings, topic, sent)
        live.wait_for(len(sent) + len(live.warm), 120 + len(sent) / 2)
        live.meter.sample()
        found = watch.commits(live.connection, contestant.layout)
        watch.verify(live.connection, contestant.layout, [*live.warm, *sent], model)
        outcome.add(
            contestant.name,
            **{
                "running /s": len(sent) / (found.last - began),
                "CPU seconds": sum(live.meter.spent.values()),
                "MB": sum(live.memory_mb().values()),
            },
        )
        outcome.add_memory(contestant.name, live.memory_mb())


def average_length(sent: list[Text]) -> float:
    return sum(len(each.text) for each in sent) / max(1, len(sent))
