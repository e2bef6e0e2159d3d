"""A backlog: whether a record costs the same at the end of it as at its beginning, and what memory each part takes."""

import argparse
import os
import statistics
from collections.abc import Sequence
from itertools import zip_longest

import numpy as np
from numpy.typing import NDArray

from benchmarks import contestants, floors, texts, watch
from benchmarks.arguments import some_of, whole
from benchmarks.bench import Bench, turns
from benchmarks.report import Outcome
from embedder.hashing import HashingEmbedder
from stack.progress import say

ABOUT = "rate over a backlog of a million texts, and the memory of each part"

OF = ("lean", "unindexed", "shipped")
FLOOR = "floor: hashing alone, on every core"
STEADY_RATE = 50_000  # texts a second, for the length of a step of the floor
STEPS = 4  # at least, so that there are some between the first and the last


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=1_000_000)
    parser.add_argument("--every", type=whole, default=100_000, help="records that one rate is taken over")
    parser.add_argument("--runs", type=whole, default=1)
    parser.add_argument("--of", type=some_of(OF), default="lean,shipped", help=f"some of {','.join(OF)}")


def check(given: argparse.Namespace) -> str | None:
    if given.records < STEPS * given.every:
        return f"--every {given.every}: {given.records} records are fewer than {STEPS} times that"
    return None


def quick(given: argparse.Namespace) -> None:
    given.records, given.every = 30_000, 5_000


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    choices = {
        "lean": contestants.lean,
        "unindexed": lambda: contestants.ours(
            "as shipped, no vector index", contestants.EVERYTHING, {"vector_index": "off"}
        ),
        "shipped": contestants.as_shipped,
    }
    outcome = bench.begin("backlog", f"{given.records:,} texts, hashing embedder", given)
    embedder = HashingEmbedder()
    sent = list(texts.made_up(given.records))
    rounds: dict[str, list[list[float]]] = {}
    with bench.topic(sent) as topic:
        entered = [choices[name]() for name in given.of.split(",")]
        for number, contestant in turns(entered, given.runs):
            if contestant is entered[0]:
                add_floor(outcome, number, given)
            with bench.live(contestant, topic, embedder=embedder) as live:
                live.wait_for_first()
                live.wait_for(given.records, 120 + given.records / 1_000)
                live.meter.sample()
                found = watch.commits(live.connection, contestant.layout)
                watch.verify(live.connection, contestant.layout, sent, embedder)
                rates = found.rates(given.every)
                at, spent = np.array(live.meter.seconds).T
                costs = np.diff(np.interp(found.times(given.every), at, spent))
                memory = live.memory_mb(servers=True)
            outcome.add(
                contestant.name,
                **{
                    "all /s": found.running_rate,
                    **evenness(rates),
                    **cost_figures(costs),
                    "MB": sum(live.memory_mb().values()),
                },
            )
            outcome.add_memory(contestant.name, live.memory_mb())
            rounds.setdefault(contestant.name, []).append(rates)
            outcome.details[f"{contestant.name}, round {number}"] = {
                "rates": [round(rate) for rate in rates],
                "cpu seconds of each": [round(float(cost), 2) for cost in costs],
                "largest megabytes": {name: round(size) for name, size in memory.items()},
                "megabytes over time": [
                    [round(at), {name: round(size) for name, size in sizes.items()}]
                    for at, sizes in live.meter.series[:: max(1, len(live.meter.series) // 40)]
                ],
                "cpu seconds": {name: round(value, 1) for name, value in live.meter.spent.items()},
            }
            say(f"  round {number}: {contestant.name}: {found.running_rate:,.0f}/s, last {rates[-1]:,.0f}/s")
    outcome.notes.append(
        "aim: the rate stays within 10 % from start to end; CPU: of all processes, servers too, for each step between "
        "the first and the last, in which some parts have work of other steps or none any more; MB: the sum of the "
        "largest of each of the product's own processes"
    )
    outcome.plot = {
        "title": "Rate over a backlog",
        "x": "texts done",
        "y": "texts a second",
        "lines": {name: line(rates, given.every) for name, rates in rounds.items()},
    }
    return outcome


def add_floor(outcome: Outcome, number: int, given: argparse.Namespace) -> None:
    """How even a rate is that only the machine changes, over as many steps that take about as long."""
    rates = floors.steady_rates(os.cpu_count() or 2, given.records // given.every, given.every / STEADY_RATE)
    outcome.add(FLOOR, **{"all /s": statistics.mean(rates), **evenness(rates)})
    outcome.details[f"{FLOOR}, round {number}"] = {"rates": [round(rate) for rate in rates]}


def evenness(rates: Sequence[float]) -> dict[str, float]:
    """How even the rates of the steps are. Two steps are looked at together as well, because what is due after a fixed
    number of texts (text indexes take in what waits beside them every 65,000 or so) falls now once into a step and
    now twice."""
    return {
        "first /s": rates[0],
        "last /s": rates[-1],
        "least of average": min(rates) * len(rates) / sum(rates),
        "last of first": rates[-1] / rates[0],
        "last two of first two": statistics.harmonic_mean(rates[-2:]) / statistics.harmonic_mean(rates[:2]),
    }


def cost_figures(costs: NDArray[np.float64]) -> dict[str, float]:
    """How even the processor time of the steps is. The first step includes storing texts ahead of their vectors, and
    the last lacks that, so neither says what a text costs."""
    between = costs[1:-1]
    return {
        "CPU most of average": float(between.max() / between.mean()),
        "CPU last but one of second": float(between[-1] / between[0]),
    }


def line(rounds: Sequence[Sequence[float]], every: int) -> list[list[float]]:
    """The median rate of each step over the rounds, by the texts that are done after it."""
    steps = zip_longest(*rounds)
    return [
        [(place + 1) * every, statistics.median(rate for rate in step if rate is not None)]
        for place, step in enumerate(steps)
    ]
