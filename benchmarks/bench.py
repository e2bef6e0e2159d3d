"""What every case is given: the servers, and the running of one contestant for one round."""

import argparse
import itertools
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import contestants, environments, publish, watch
from benchmarks.contestants import Contestant, Round
from benchmarks.processes import Meter, Running
from benchmarks.report import Outcome
from benchmarks.servers import Servers
from benchmarks.texts import Text
from embedder import Embedder
from settings import Settings
from stack import StackError
from stack.progress import say

TIMEOUT_SECONDS = 120.0  # for the first vector of a contestant


@dataclass
class Live:
    """A contestant that is running."""

    contestant: Contestant
    settings: Settings
    running: list[Running]
    connection: watch.Connection
    meter: Meter
    started_at: float
    start: Callable[[str], Running]
    warm: list[Text] = field(default_factory=list)

    def problem(self) -> str | None:
        """Why the contestant cannot go on, or None."""
        for each in self.running:
            if not each.alive:
                return f"{each.name} of {self.contestant.name} has ended:\n{each.log_tail()}"
        return None

    def wait_for_first(self) -> int:
        """Waits for the first vectors, and starts the meter there; returns how many there were by then."""
        vectors = self.contestant.layout.vectors
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not watch.number(self.connection, f"SELECT count(*) FROM (SELECT FROM {vectors} LIMIT 1) AS first"):
            if (ended := self.problem()) is not None or time.monotonic() > deadline:
                raise watch.Unfinished(ended or f"{self.contestant.name}: no vector after {TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.05)
        self.meter.restart()
        return int(watch.number(self.connection, f"SELECT count(*) FROM {vectors}"))

    def wait_for(self, expected: int, timeout: float) -> None:
        watch.wait_until_visible(
            self.connection,
            self.contestant.layout,
            expected,
            timeout=timeout,
            meter=self.meter,
            alive=self.problem,
        )

    def warm_up(self) -> None:
        """Sends one text after the other until all are visible: then it takes texts. They stay in `warm`."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        query = f"SELECT count(*) FROM {self.contestant.layout.vectors}"
        while True:
            text = Text(f"00000000-0000-4000-8000-{len(self.warm):012d}", f"text {len(self.warm)} to begin with")
            publish.preload(self.settings, self.settings.kafka_topic, [text])
            self.warm.append(text)
            until = time.monotonic() + 2
            while time.monotonic() < until:
                if watch.number(self.connection, query) >= len(self.warm):
                    return
                time.sleep(0.05)
            if (ended := self.problem()) is not None or time.monotonic() > deadline:
                raise watch.Unfinished(ended or f"{self.contestant.name} took no text in {TIMEOUT_SECONDS:.0f} s")

    def memory_mb(self, *, servers: bool = False) -> dict[str, float]:
        own = {each.name for each in self.running}
        return {name: size for name, size in self.meter.largest_mb.items() if servers or name in own}


@dataclass
class Bench:
    servers: Servers
    quick: bool = False
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    outcome: Outcome | None = None  # what has been found so far, also if the case fails

    def begin(self, case: str, title: str, given: argparse.Namespace) -> Outcome:
        self.outcome = Outcome(case, title, what_matters(given))
        return self.outcome

    @contextmanager
    def topic(self, texts: Sequence[Text]) -> Iterator[str]:
        """A topic that holds these texts, for any number of consumer groups."""
        name = f"texts-{next(self.numbers)}"
        self.servers.create_topic(name)
        if texts:
            began = time.monotonic()
            publish.preload(self.servers.settings, name, texts)
            say(f"  {len(texts):,} texts are in Kafka after {time.monotonic() - began:.1f} s")
        try:
            yield name
        finally:
            self.servers.delete_topic(name)

    @contextmanager
    def live(
        self,
        contestant: Contestant,
        topic: str,
        *,
        embedder: Embedder,
        indexed: bool = False,
        changes: Mapping[str, object] | None = None,
    ) -> Iterator[Live]:
        """Runs a contestant on a database, a broker's database and a consumer group of its own."""
        settings = contestants.settings_for(self.servers, next(self.numbers), topic, **dict(changes or {}))
        folder = Path(settings.data_dir)
        folder.mkdir(parents=True, exist_ok=True)
        this = Round(self.servers, settings, folder, embedder.dimensions, indexed)
        self.servers.create_database(settings.database_name)
        contestant.create_tables(this)
        connection = self.servers.connect(settings.database_name)
        running: list[Running] = []
        try:
            started_at = time.time()
            for part in contestant.parts:
                running.append(contestant.start(this, part))  # noqa: PERF401 - what has been started must be known
            meter = Meter({**self.servers.pids, **{each.name: each.pid for each in running}})
            yield Live(contestant, settings, running, connection, meter, started_at, partial(contestant.start, this))
        finally:
            for each in running:
                each.ask_to_stop()
            for each in running:
                each.stop()
            connection.close()
            self.servers.drop_database(settings.database_name)
            shutil.rmtree(folder, ignore_errors=True)


def what_matters(given: argparse.Namespace) -> dict[str, object]:
    """A case's arguments without those that say only where its files go."""
    return {key: value for key, value in vars(given).items() if key not in ("output", "plot")}


def installed(outcome: Outcome, wanted: Sequence[Contestant]) -> list[Contestant]:
    """The contestants that can be measured here: the packages of peers are installed before anything is measured. A
    note tells which are left out, and why. Raises Unfinished if that is all of them."""
    missing: dict[str, str] = {}
    for name in dict.fromkeys(each.peer for each in wanted if each.peer):
        try:
            environments.python(name)
        except StackError as error:
            missing[name] = str(error)
            say(f"  without {name}: {error}")
    outcome.notes += [f"without {name}, which could not be installed: {reason}" for name, reason in missing.items()]
    left = [each for each in wanted if each.peer not in missing]
    if not left:
        raise watch.Unfinished("; ".join(outcome.notes))
    return left


def turns(contestants_: Sequence[Contestant], runs: int) -> Iterator[tuple[int, Contestant]]:
    """Every contestant in every round; each round begins with another one, so that none always goes first."""
    for number in range(runs):
        shift = number % len(contestants_)
        for contestant in [*contestants_[shift:], *contestants_[:shift]]:
            yield number + 1, contestant
