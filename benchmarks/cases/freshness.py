"""Freshness: how long after a record was given to Kafka its vector can be found, at an even rate.

PostgreSQL is asked afterwards when each vector was committed. To ask it meanwhile, every two milliseconds, took a fifth
of two cores, and turned 15 ms into 20. For the whole pipeline the search API is asked too, as its users would.
"""

import argparse
import contextlib
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import requests

from benchmarks import contestants, floors, texts, watch
from benchmarks.arguments import more_than_none, some_of, whole
from benchmarks.bench import Bench, Live, installed, turns
from benchmarks.beside import beside
from benchmarks.cases.search import percentiles
from benchmarks.publish import Pacer
from benchmarks.report import Outcome, Ratio
from benchmarks.texts import Text
from embedder import load_provider
from stack.progress import say

ABOUT = "milliseconds from Kafka to found, at 50 and at 500 texts a second"

EMBEDDERS = ("hashing", "minilm")

PATIENCE_SECONDS = 30.0
PROBE_EVERY_SECONDS = 0.5

DISK = "floor: a write that waits for the disk"

OF = ("lean", "shipped", "pathway")

PLAN = ("hashing:50", "hashing:500", "minilm:50")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=more_than_none, default=20.0, help="how long texts are sent in a round")
    parser.add_argument("--runs", type=whole, default=3)
    parser.add_argument("--plan", type=plans, default=",".join(PLAN), help="EMBEDDER:TEXTS A SECOND, some of them")
    parser.add_argument("--of", type=some_of(OF), default=",".join(OF), help="some of them")


def plans(text: str) -> str:
    """Some of EMBEDDER:TEXTS A SECOND, separated by commas."""
    for each in text.split(","):
        name, _, rate = each.partition(":")
        some_of(EMBEDDERS)(name)
        more_than_none(rate)
    return text


def check(given: argparse.Namespace) -> str | None:
    few = [plan for plan in given.plan.split(",") if float(plan.partition(":")[2]) * given.seconds < 1]
    return f"{few[0]} sends no text in {given.seconds:g} seconds" if few else None


def quick(given: argparse.Namespace) -> None:
    given.seconds, given.runs = 5.0, 1


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    choices = {"lean": contestants.lean, "shipped": contestants.as_shipped, "pathway": contestants.pathway}
    outcome = bench.begin("freshness", "from the producer's call to a vector that a search finds, in ms", given)
    entered = installed(outcome, [choices[name]() for name in given.of.split(",")])
    for plan in given.plan.split(","):
        name, _, rate = plan.partition(":")
        for number, contestant in turns(entered, given.runs):
            if contestant is entered[0]:
                add(outcome, f"{DISK}, {told(plan)}", floors.disk_waits(bench.servers.folder))
            changes: dict[str, object] = {"embedding_provider": name}
            embedder = load_provider(replace(bench.servers.settings, embedding_provider=name))
            sent = list(texts.made_up(int(float(rate) * given.seconds), seed=number))
            with bench.topic([]) as topic, bench.live(contestant, topic, embedder=embedder, changes=changes) as live:
                live.warm_up()
                live.meter.restart()
                waits, searches = follow(live, sent, float(rate), contestant.name == "as shipped")
                spent = cpu_milliseconds(live, len(sent))
            add(outcome, f"{contestant.name}, {told(plan)}", waits, **spent)
            if searches:
                add(outcome, f"{contestant.name}, {told(plan)}, by HTTP", searches)
            say(f"  round {number}: {contestant.name}, {plan}/s: p50 {np.percentile(waits, 50):.1f} ms")
    # The aim was set for what costs next to nothing to embed, and for a rate that leaves the cores idle.
    outcome.ratios = [
        Ratio(
            figure,
            f"{ours}, {told(plan)}",
            f"Pathway, {told(plan)}",
            "no more than 1" if (ours, plan) == ("like Pathway", "hashing:50") else "",
        )
        for plan in given.plan.split(",")
        for ours in ("like Pathway", "as shipped")
        for figure in ("p50 ms", "p99 ms")
    ]
    outcome.notes.append(
        "until a vector is committed; a text is committed before it is embedded, and a commit waits for the disk; "
        f"'by HTTP': a text every {PROBE_EVERY_SECONDS} s among the others, searched for by POST /embeddings/search "
        "until it is found; CPU: of a text, of its processes and of the servers"
    )
    return outcome


def told(plan: str) -> str:
    """A plan as the rows name it."""
    name, _, rate = plan.partition(":")
    return f"{name}, {rate}/s"


def add(outcome: Outcome, who: str, milliseconds: Sequence[float], **others: float) -> None:
    outcome.add(who, **percentiles(milliseconds), **{"most ms": float(max(milliseconds))}, **others)


def cpu_milliseconds(live: Live, texts: int) -> dict[str, float]:
    """Processor time for a text since the meter was restarted, of the contestant's own processes and of the servers."""
    live.meter.sample()
    own = {each.name for each in live.running}
    parts = {"CPU own ms": own, "CPU servers ms": live.meter.spent.keys() - own}
    return {title: 1000 * sum(live.meter.spent[name] for name in names) / texts for title, names in parts.items()}


def follow(live: Live, sent: Sequence[Text], rate: float, searched: bool) -> tuple[list[float], list[float]]:
    """Sends texts, and asks afterwards when their vectors were committed. Returns the waits in ms, and the probes'
    waits by HTTP."""
    searches: list[float] = []
    asking = beside("the search for a probe", partial(probe, live, searches)) if searched else contextlib.nullcontext()
    with contextlib.closing(Pacer(live.settings, live.settings.kafka_topic, rate)) as pacer, asking:
        pacer.run(sent)
    live.wait_for(len(live.warm) + len(sent) + len(searches), PATIENCE_SECONDS)
    seen = watch.committed(live.connection, live.contestant.layout, list(pacer.sent_at))
    return [1000 * (seen[key] - at) for key, at in pacer.sent_at.items()], searches


def probe(live: Live, waits: list[float], over: threading.Event) -> None:
    """Now and then sends a text of its own, and searches for it over HTTP until it is found; each gives a wait in ms.

    Raises Unfinished if one is not found: the waits of those that were found would look as if all were well.
    """
    url = f"http://127.0.0.1:{live.settings.search_api_port}/embeddings/search"
    with (
        contextlib.closing(Pacer(live.settings, live.settings.kafka_topic, 1)) as pacer,
        requests.Session() as http,
    ):
        http.trust_env = False
        while not over.wait(PROBE_EVERY_SECONDS):
            text = Text(str(uuid.uuid4()), f"probe {uuid.uuid4().hex} {uuid.uuid4().hex}")
            began = time.time()
            pacer.run([text])
            while True:
                answer = http.post(url, json={"query": text.text, "limit": 1}, timeout=10)
                if answer.ok and [hit["id"] for hit in answer.json()["results"]] == [text.id]:
                    waits.append(1000 * (time.time() - began))
                    break
                if time.time() - began > PATIENCE_SECONDS:
                    raise watch.Unfinished(
                        f"not found after {PATIENCE_SECONDS:g} s; the last answer was {answer.status_code}"
                    )
