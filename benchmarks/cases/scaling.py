"""Scaling by queue: what more workers on one queue bring, if the work of that queue is waiting for somebody else.

The embed workers ask an endpoint that answers after 200 ms; in the runs that are about persist, its workers write to a
database that is a round trip of 20 ms away. So both can be scaled on two cores, each without the other.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import contestants, texts, watch
from benchmarks.arguments import more_than_none, whole, wholes
from benchmarks.bench import Bench, Live
from benchmarks.contestants import CORE, OURS, PEERS, Contestant, Round
from benchmarks.processes import Running
from benchmarks.report import Outcome, Ratio
from benchmarks.servers import free_ports
from stack import probes
from stack.progress import say

ABOUT = "1, 2, 4 and 8 workers on each queue, with a remote embedder and a database far away"

DIMENSIONS = 384
TEXTS_A_TASK = 32
TEXTS_A_REQUEST = 32


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--workers", type=wholes, default="1,2,4,8", help="how many workers are tried")
    parser.add_argument("--answer-ms", type=whole, default=200, help="the remote embedder's time for a request")
    parser.add_argument(
        "--distance-ms", type=whole, default=20, help="the round trip from persist workers to PostgreSQL"
    )
    parser.add_argument("--seconds", type=more_than_none, default=15.0, help="how long each is measured")
    parser.add_argument("--runs", type=whole, default=3)


def quick(given: argparse.Namespace) -> None:
    given.workers, given.seconds, given.runs = "1,4", 5.0, 1


class Remote:
    """A stand-in with what the harness needs of an embedder, its settings included."""

    dimensions = DIMENSIONS


def run(bench: Bench, given: argparse.Namespace) -> Outcome:
    outcome = bench.begin(
        "scaling",
        f"an embedder that answers after {given.answer_ms} ms, a database {given.distance_ms} ms away",
        given,
    )
    counts = [int(count) for count in given.workers.split(",")]
    plan = [("embed", count) for count in counts] + [("persist", count) for count in counts]
    with remote_embedder(bench, given.answer_ms) as port, far_database(bench, given.distance_ms) as far:
        for number in range(given.runs):
            for queue, count in plan:
                once(bench, outcome, given, port, far, queue, count)
                say(f"  round {number + 1}: {label(queue, count)}: {last(outcome, queue, count)}")
    most = max(counts)
    outcome.ratios = [
        Ratio("embedded /s", label("embed", most), label("embed", 1), f"{7 * most / 8:.3g}"),
        Ratio("stored /s", label("persist", most), label("persist", 1), f"{7 * most / 8:.3g}"),
        Ratio("embedded /s", label("persist", most), label("persist", 1), "1: not touched by the other"),
    ]
    outcome.notes.append(f"{TEXTS_A_TASK} texts a task, {TEXTS_A_REQUEST} a request; bridge and beat as always")
    outcome.plot = plot(outcome, counts)
    return outcome


def label(queue: str, count: int) -> str:
    return f"{count} {queue} worker{'s' if count > 1 else ''}"


def last(outcome: Outcome, queue: str, count: int) -> str:
    return ", ".join(f"{name} {values[-1]:,.0f}" for name, values in outcome.figures[label(queue, count)].items())


def once(
    bench: Bench, outcome: Outcome, given: argparse.Namespace, port: int, far: int, queue: str, count: int
) -> None:
    persist, embed = (count, 1) if queue == "persist" else (1, count)
    changes: dict[str, object] = {
        "embedding_provider": "openai",
        "openai_base_url": f"http://127.0.0.1:{port}/v1",
        "openai_batch_max": TEXTS_A_REQUEST,
        "openai_model": "remote",
        "persist_workers": persist,
        "embed_workers": embed,
        "bridge_batch_max": TEXTS_A_TASK,
        "embed_batch_max": TEXTS_A_TASK,
        # Room for each of the workers, and no more than they can do in a lease.
        "bridge_window": 32,
    }
    contestant = contestants.ours("scaled", CORE, contestants.LEAN_SETTINGS)
    if queue == "persist":
        contestant = far_persist(contestant, far)
    # More than the workers can do in that time: one embeds 160 texts a second, or stores some hundreds.
    sent = list(texts.made_up(int((given.seconds + 15) * count * (250 if queue == "embed" else 500)) + 5_000))
    with (
        bench.topic(sent) as topic,
        bench.live(contestant, topic, embedder=Remote(), changes=changes) as live,  # type: ignore[arg-type]
    ):
        wait_for_first(live)
        time.sleep(3)  # until the queue of each kind has filled, and every worker has work
        first = counts(live)
        time.sleep(given.seconds)
        second = counts(live)
        left = len(sent) - second["stored" if queue == "persist" else "embedded"]
        if left <= 0:
            raise watch.Unfinished("the backlog was done before the time was over: send more")
    took = second["at"] - first["at"]
    outcome.add(
        label(queue, count),
        **{
            "stored /s": (second["stored"] - first["stored"]) / took,
            "embedded /s": (second["embedded"] - first["embedded"]) / took,
        },
    )


def far_persist(contestant: Contestant, port: int) -> Contestant:
    """The same, with persist workers whose database is at another port."""

    def start(this: Round, part: str) -> Running:
        settings = replace(this.settings, database_port=port) if part == "persist-worker" else this.settings
        return contestant.start(replace(this, settings=settings), part)

    return replace(contestant, start=start)


def counts(live: Live) -> dict[str, float]:
    rows = watch.ask(
        live.connection,
        f"""SELECT (SELECT count(*) FROM {OURS.texts}), (SELECT count(*) FROM {OURS.vectors}),
                extract(epoch FROM clock_timestamp())::float8""",
    )
    stored, embedded, at = (float(str(value)) for value in rows[0])
    return {"stored": stored, "embedded": embedded, "at": at}


def wait_for_first(live: Live) -> None:
    deadline = time.monotonic() + 60
    while not counts(live)["embedded"]:
        if (ended := live.problem()) is not None or time.monotonic() > deadline:
            raise watch.Unfinished(ended or "nothing was embedded in a minute")
        time.sleep(0.1)


@contextmanager
def remote_embedder(bench: Bench, milliseconds: int) -> Iterator[int]:
    (port,) = free_ports(1)
    with helper(bench, "embedding_endpoint", [str(port), str(milliseconds)], port):
        yield port


@contextmanager
def far_database(bench: Bench, milliseconds: int) -> Iterator[int]:
    (port,) = free_ports(1)
    target = str(bench.servers.settings.database_port)
    with helper(bench, "distance", [str(port), target, str(milliseconds)], port):
        yield port


@contextmanager
def helper(bench: Bench, name: str, arguments: Sequence[str], port: int) -> Iterator[None]:
    """Runs a program of `peers` that listens at a port."""
    folder = bench.servers.folder
    command = [sys.executable, str(Path(PEERS) / f"{name}.py"), *arguments]
    running = Running(name, command, environment={"PYTHONUNBUFFERED": "1"}, folder=folder, log=folder / f"{name}.log")
    try:
        deadline = time.monotonic() + 20
        while (reason := probes.tcp("127.0.0.1", port)) is not None:
            if not running.alive or time.monotonic() > deadline:
                raise watch.Unfinished(f"{name}: {reason}\n{running.log_tail()}")
            time.sleep(0.05)
        yield
    finally:
        running.stop()


def plot(outcome: Outcome, counts: Sequence[int]) -> dict[str, object]:
    """Rate over rate with one worker, of both queues, beside the ideal."""

    def relative(figure: str, labels: Sequence[str]) -> list[float]:
        middles = [statistics.median(outcome.figures[each][figure]) for each in labels]
        return [middle / middles[0] for middle in middles]

    embed = relative("embedded /s", [label("embed", count) for count in counts])
    persist = relative("stored /s", [label("persist", count) for count in counts])
    return {
        "title": "Scaling by queue",
        "x": "workers on the queue",
        "y": "times the rate of one worker",
        "lines": {
            "embed, remote model": [list(pair) for pair in zip(counts, embed, strict=True)],
            "persist, remote database": [list(pair) for pair in zip(counts, persist, strict=True)],
            "ideal": [[count, count / counts[0]] for count in counts],
        },
    }
