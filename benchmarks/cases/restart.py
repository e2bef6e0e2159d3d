"""Restart: everything, or one part, is killed with SIGKILL in the middle of a backlog and started again at once.

The result is the longest time without a new vector from then on, and that nothing was lost or doubled. (The very next
vector says nothing: PostgreSQL still commits what the killed processes had sent.)
"""

import argparse
import time
from itertools import pairwise

from benchmarks import contestants, texts, watch
from benchmarks.arguments import some_of, whole
from benchmarks.bench import Bench, Live, installed
from benchmarks.contestants import CORE, Contestant
from benchmarks.report import Outcome
from benchmarks.texts import Text
from embedder.hashing import HashingEmbedder

ABOUT = "the pause that a kill -9 makes, of everything and of each part"

PARTS = ("all", *CORE)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", type=whole, default=200_000)
    parser.add_argument("--runs", type=whole, default=3)
    parser.add_argument("--of", type=some_of(("ours", "pathway")), default="ours,pathway", help="some of them")
    parser.add_argument("--parts", type=some_of(PARTS), default=",".join(PARTS), help="what of ours is killed")


def quick(given: argparse.Namespace) -> None:
    given.records, given.runs, given.parts = 30_000, 1, "all,bridge"


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    outcome = bench.begin("restart", f"killed in the middle of {given.records:,} texts, hashing embedder", given)
    sent = list(texts.made_up(given.records))
    plan: list[tuple[Contestant, str]] = []
    if "ours" in given.of.split(","):
        plan += [(contestants.lean(), part) for part in given.parts.split(",")]
    if "pathway" in given.of.split(","):
        # Bounded, or it may have taken in everything before it is killed.
        plan.append((contestants.pathway(backlog=max(500, given.records // 40)), "all"))
    left = installed(outcome, [contestant for contestant, _ in plan])
    plan = [(contestant, part) for contestant, part in plan if contestant in left]
    with bench.topic(sent) as topic:
        for _ in range(given.runs):
            for contestant, part in plan:
                once(bench, outcome, contestant, part, topic, sent)
    outcome.notes.append("every round: all texts are there once, with their vectors (counts and checksum)")
    return outcome


def once(bench: Bench, outcome: Outcome, contestant: Contestant, part: str, topic: str, sent: list[Text]) -> None:
    embedder = HashingEmbedder()
    with bench.live(contestant, topic, embedder=embedder) as live:
        wait_for_share(live, len(sent) // 4)
        killed_at = time.time()
        victims = [each for each in live.running if part in ("all", each.name)]
        for each in victims:
            each.kill()
        there = watch.number(live.connection, f"SELECT count(*) FROM {contestant.layout.vectors}")
        live.running[:] = [each for each in live.running if each not in victims]
        live.running += [live.start(each.name) for each in victims]
        live.wait_for(len(sent), 120 + len(sent) / 400)
        found = watch.commits(live.connection, contestant.layout)
        watch.verify(live.connection, contestant.layout, sent, embedder)
    who = contestant.name if contestant.name == "Pathway" else "this pipeline"
    gaps = [b - a for a, b in pairwise(found.at) if b > killed_at]
    outcome.add(
        f"{who}: {part}",
        **{
            "longest pause s": max(gaps, default=float("nan")),
            "all done after s": found.last - killed_at,
            "done when killed": there / len(sent),
        },
    )


def wait_for_share(live: Live, count: int) -> None:
    """Waits for `count` vectors. Counting costs time, but nothing is timed yet."""
    deadline = time.monotonic() + 180
    while watch.number(live.connection, f"SELECT count(*) FROM {live.contestant.layout.vectors}") < count:
        if (ended := live.problem()) is not None or time.monotonic() > deadline:
            raise watch.Unfinished(ended or "the backlog does not move")
        time.sleep(0.1)
