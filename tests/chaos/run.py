"""One run from its seed to its verdict: the load, the faults and the watch at the same time, then the end state."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos import checks, watch
from tests.chaos.faults import carry_out
from tests.chaos.plan import Plan
from tests.chaos.system import System
from tests.chaos.traffic import Clients, Sender
from tests.chaos.workload import workload

Say = Callable[[str], None]


@dataclass
class Outcome:
    """What a run has found: `problems` is empty when every promise was kept."""

    seed: int
    problems: list[str]
    figures: dict[str, object] = field(default_factory=dict)

    def verdict(self) -> str:
        return "\n".join([f"seed {self.seed}:", *self.problems])


def speaker(began: float) -> Say:
    return lambda line: print(f"{time.monotonic() - began:7.1f} s  {line}", flush=True)


def run_plan(
    system: System, plan: Plan, *, good: int, bad: int, settle_seconds: float, clean_up: bool = True
) -> Outcome:
    """Carries out a plan under load, lets the system come to rest, and compares."""

    def disturb(say: Say) -> None:
        say(f"{len(plan.events)} faults in {plan.seconds:.0f} s")
        carry_out(system, plan, say)

    return run(system, plan.seed, disturb, plan.seconds, good, bad, settle_seconds, clean_up=clean_up)


def run(
    system: System,
    seed: int,
    disturb: Callable[[Say], None],
    seconds: float,
    good: int,
    bad: int,
    settle_seconds: float,
    *,
    clean_up: bool = True,
) -> Outcome:
    """Sends the load of the seed over so many seconds while `disturb` does its worst; then waits and compares.

    With `clean_up` it also waits for the second look after deletions, which comes 35 s later.
    """
    say = speaker(time.monotonic())
    say(f"seed {seed}: {good} good records, {bad} bad, over {seconds:.0f} s")
    records = workload(seed, good, bad)
    with watch.CommitWatch(system) as commits:
        with Clients(system, seed) as clients, Sender(system, records, seconds, seed) as sender:
            disturb(say)
            sender.check()
            say("all sent")
        began = time.monotonic()
        left = settle(system, settle_seconds, clean_up=clean_up)
        settled = time.monotonic() - began
        say(f"at rest after {settled:.1f} s" if not left else f"not at rest: {left}")
    problems = [f"not at rest after {settle_seconds:g} s: {left}"] if left else []
    problems += checks.told("committed too early", commits.violations)
    problems += checks.told("answers", clients.odd)
    loose: list[str] = []
    found, expected = checks.differences(system, records, clients.accepted, loose)
    problems += found
    ended = {name: part.ends for name, part in system.parts.items() if part.ends}
    figures: dict[str, object] = {
        "records": len(records) + len(clients.accepted),
        "messages": len(expected.rows),
        "deleted": len(expected.deletions.keys() - expected.rows.keys()),
        "dead letters": len(expected.bad),
        "copies in their topic": checks.copies_in_topic(system),
        "accepted POSTs": len(clients.accepted),
        "answers": dict(sorted(clients.answers.items())),
        "slowest answers (s)": {name: round(seconds, 1) for name, seconds in sorted(clients.slowest.items())},
        "sent again": sender.again,
        "commit samples": commits.samples,
        "commits checked": commits.checked,
        "commits moved back": commits.moved_back,
        "at rest after (s)": round(settled, 1),
        "ended by themselves": ended,
        "loose columns": checks.told("different", loose),
    }
    for name, value in figures.items():
        say(f"{name}: {value}")
    for problem in problems:
        say(f"PROBLEM {problem}")
    return Outcome(seed, problems, figures)


def settle(system: System, seconds: float, *, clean_up: bool) -> str:
    """Waits until nothing is under way any more; returns what still is when the time is over."""
    deadline = time.monotonic() + seconds
    while (left := checks.unsettled(system, clean_up=clean_up)) and time.monotonic() < deadline:
        time.sleep(0.3)
    return left
