"""The plan of a run: what breaks, in which order, with which pauses. A pure function of the seed.

Nothing is carried out here; `faults` does that.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

# The parts that fork. Of these the main process may be killed alone, which leaves orphans, or one child alone.
FORKING = ("persist-worker", "embed-worker", "postgres", "text-api", "search-api")

GROUP, MAIN, CHILD = "group", "main", "child"


@dataclass(frozen=True)
class Event:
    """One fault, `after` so many seconds since the one before.

    `action` is "kill" (SIGKILL to `parts` at once, each by its way of `how`), "flush" (FLUSHALL) or "fill" (Redis full
    to its maxmemory for `seconds`).
    """

    after: float
    action: str
    parts: tuple[str, ...] = ()
    how: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        if self.action == "kill":
            return "kill -9 " + " and ".join(
                name if how == GROUP else f"{name} ({how} only)" for name, how in zip(self.parts, self.how, strict=True)
            )
        return "FLUSHALL" if self.action == "flush" else f"Redis full for {self.seconds:g} s"


@dataclass(frozen=True)
class Plan:
    """The events of a run in their order, and how many bridges share the work meanwhile."""

    seed: int
    bridges: int
    events: tuple[Event, ...]

    @property
    def seconds(self) -> float:
        return sum(event.after + event.seconds for event in self.events)


def make_plan(
    seed: int,
    parts: Sequence[str],
    *,
    bridges: int,
    kills: int = 3,
    pairs: int = 3,
    children: int = 1,
    flushes: int = 2,
    fills: int = 1,
    fill_seconds: float = 5.0,
    pauses: tuple[float, float] = (1.5, 6.0),
) -> Plan:
    """Each part is killed `kills` times, some of these in `pairs`; each forking one loses `children` single processes
    on top of that."""
    rng = random.Random(f"plan/{seed}")
    left = [name for name in parts for _ in range(kills)]
    rng.shuffle(left)
    victims: list[tuple[str, ...]] = []
    for _ in range(pairs):
        first = left.pop()
        second = next(name for name in reversed(left) if name != first)
        left.remove(second)
        victims.append((first, second))
    victims += [(name,) for name in left]
    faults = [("kill", names, tuple(way(rng, name) for name in names), 0.0) for names in victims]
    for name in parts:
        if name in FORKING:
            faults += [("kill", (name,), (CHILD,), 0.0)] * children
    faults += [("flush", (), (), 0.0)] * flushes + [("fill", (), (), fill_seconds)] * fills
    rng.shuffle(faults)
    events = tuple(Event(pause(rng, pauses), *fault) for fault in faults)
    return Plan(seed, bridges, events)


def way(rng: random.Random, name: str) -> str:
    return MAIN if name in FORKING and rng.random() < 0.4 else GROUP


def pause(rng: random.Random, between: tuple[float, float]) -> float:
    """Mostly long enough to recover half-way; sometimes the next fault hits what has just begun to recover."""
    return round(rng.uniform(0.1, 1.0) if rng.random() < 0.2 else rng.uniform(*between), 2)


def bridges_of(seed: int) -> int:
    """One bridge, as by default, or two."""
    return random.Random(f"bridges/{seed}").choice((1, 2))
