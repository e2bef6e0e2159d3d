"""Throughput without a model: a preloaded topic, and how fast its texts become visible vectors.

The embedder is the hashing one, so that everything but the model is measured. `--stub` is how many microseconds of a
core it takes for each text, to stand in for a fast model; 0 leaves what hashing takes by itself, about 2.
"""

import argparse
import contextlib
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from benchmarks import contestants, floors, texts, watch
from benchmarks.arguments import not_negative, some_of, whole
from benchmarks.bench import Bench, installed, turns
from benchmarks.contestants import Contestant
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder import Embedder
from embedder.hashing import HashingEmbedder
from stack.progress import say

ABOUT = "messages a second with a stub embedder, beside Pathway and a short script"

LEAN, LEAN2 = "like Pathway", "like Pathway, 2 embed workers"
SHIPPED, SHIPPED2 = "as shipped", "as shipped, 2 workers a queue"
OURS = (LEAN, LEAN2, SHIPPED, SHIPPED2)

THREADS = os.cpu_count() or 2
PATHWAY2 = f"Pathway, {THREADS} threads"

CHOICES: Mapping[str, Callable[[], Contestant]] = {
    "shipped": contestants.as_shipped,
    "shipped2": lambda: replace(contestants.as_shipped(persist_workers=2, embed_workers=2), name=SHIPPED2),
    "lean": contestants.lean,
    "lean2": lambda: replace(contestants.lean(embed_workers=2), name=LEAN2),
    "pathway": contestants.pathway,
    "pathway2": lambda: contestants.pathway(threads=THREADS, name=PATHWAY2),
    "script": contestants.script,
}

SECONDS_A_RECORD = 1 / 400  # no contestant may be slower

# Also against Pathway with as many threads as there are cores. "Running" leaves out what is stored before the first
# vector, which is more in a pipeline of several queues; the second half is farther from that.
RATIOS = (
    Ratio("running /s", LEAN, "Pathway", "1.2"),
    Ratio("running /s", LEAN2, "Pathway", "1.2"),
    Ratio("running /s", SHIPPED, "Pathway", "1.0"),
    Ratio("running /s", SHIPPED2, "Pathway", "1.0"),
    Ratio("running /s", LEAN2, "30-line script", "6"),
    Ratio("running /s", SHIPPED, "30-line script", "6"),
    *(Ratio("running /s", ours, PATHWAY2) for ours in OURS),
    *(Ratio("second half /s", ours, theirs) for theirs in ("Pathway", PATHWAY2) for ours in OURS),
    *(Ratio("with start /s", ours, theirs) for theirs in ("Pathway", PATHWAY2) for ours in OURS),
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=300_000)
    parser.add_argument("--runs", type=whole, default=3)
    parser.add_argument(
        "--stub", type=not_negative, default=21, help="microseconds of a core that the stub takes for a text"
    )
    parser.add_argument(
        "--of",
        type=some_of(CHOICES),
        default="lean,lean2,shipped,shipped2,pathway,pathway2,script",
        help=f"some of {','.join(CHOICES)}",
    )
    parser.add_argument("--script-records", type=whole, default=50_000, help="the script gets no more than these")


def quick(given: argparse.Namespace) -> None:
    given.records, given.runs, given.script_records = 20_000, 1, 5_000


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    stub = f"a stub of {given.stub:g} µs a text" if given.stub else "hashing embedder"
    outcome = bench.begin("throughput", f"{given.records:,} texts, {stub}, 4 partitions", given)
    embedder = HashingEmbedder()
    sent = list(texts.made_up(given.records))
    few = sent[: given.script_records]
    entered = installed(outcome, [CHOICES[name]() for name in given.of.split(",")])
    with contextlib.ExitStack() as stack:
        topic = stack.enter_context(bench.topic(sent))
        small = (
            stack.enter_context(bench.topic(few))
            if any(each.peer == "script" for each in entered) and len(few) < len(sent)
            else topic
        )
        for number, contestant in turns(entered, given.runs):
            share = (few, small) if contestant.peer == "script" else (sent, topic)
            measure(bench, outcome, contestant, *share, embedder, number, {"hashing_microseconds": given.stub})
    floors.copy_rate(bench, outcome, sent[:100_000], embedder)
    outcome.ratios = RATIOS
    outcome.details["contestants"] = {each.name: dict(each.about) for each in entered}
    outcome.notes.append(
        "with start: from the start of the processes to the last vector; running: from the first visible vector to the "
        "last, without those of the first commit; second half: from when half of the vectors were visible to the last, "
        "far from what is stored before the first one; CPU: seconds of its processes, and of the servers, for "
        "100,000 texts once running"
    )
    return outcome


def measure(
    bench: Bench,
    outcome: Outcome,
    contestant: Contestant,
    sent: list[Text],
    topic: str,
    embedder: Embedder,
    number: int,
    changes: dict[str, object],
) -> None:
    """One round of one contestant; what is stored is compared with what was sent."""
    with bench.live(contestant, topic, embedder=embedder, changes=changes) as live:
        there = live.wait_for_first()
        live.wait_for(len(sent), 60 + len(sent) * SECONDS_A_RECORD)
        live.meter.sample()
        found = watch.commits(live.connection, contestant.layout)
        checked = watch.verify(live.connection, contestant.layout, sent, embedder)
        spent = live.meter.spent
        scale = 100_000 / (len(sent) - there) if there < len(sent) else math.nan
        servers = sum(spent[name] for name in bench.servers.running)
        outcome.add(
            contestant.name,
            **{
                "with start /s": len(sent) / (found.last - live.started_at),
                "running /s": found.running_rate,
                "second half /s": found.second_half_rate,
                "first vector s": found.first - live.started_at,
                "CPU own s": (sum(spent.values()) - servers) * scale,
                "CPU servers s": servers * scale,
                "MB": sum(live.memory_mb().values()),
            },
        )
        rounds = outcome.details.setdefault("rounds", [])
        assert isinstance(rounds, list)
        rounds.append(
            {
                "round": number,
                "contestant": contestant.name,
                "at": time.strftime("%H:%M:%S"),
                "verified": checked,
                "commits": len(found.at),
                "rates by tenths": [round(rate) for rate in found.rates(max(1, len(sent) // 10))],
                "cpu seconds a 100,000": {name: round(value * scale, 2) for name, value in spent.items()},
                "megabytes": {name: round(value) for name, value in live.memory_mb(servers=True).items()},
            }
        )
        say(
            f"  round {number}: {contestant.name}: {len(sent) / (found.last - live.started_at):,.0f}/s with start, "
            f"{found.running_rate:,.0f}/s running"
        )
