"""A whole system of its own for a run, servers included, and its parts under a supervisor's rule: what ends is started
again, at once at first, then with the supervisor's pauses.

How a part is prepared and run stands in `stack`; faults are carried out in `faults`.
"""

import contextlib
import gc
import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import redis
from kafka import KafkaProducer

from benchmarks.servers import free_ports
from bridge import topics
from db import schema
from settings import Settings
from stack import Part, local_part, postgres_place
from stack.places import LOCAL
from stack.processes import Identity, marked
from stack.record import Record, next_record
from tests.chaos.plan import CHILD, GROUP
from tests.parts import RUNNING, Running, stop_all

SERVERS = ("kafka", "postgres", "valkey")
PIPELINE = ("persist-worker", "embed-worker", "beat", "text-api", "search-api")
START_SECONDS = 90.0  # generous: the machine may have other work


class Supervised(Running):
    """A part that is started again whenever it ends, until it is told to stay away."""

    def __init__(self, part: Part, log: Path) -> None:
        self.lock = threading.RLock()
        self.wanted = True
        self.due: float | None = None
        self.record: Record | None = None
        self.ends: list[int] = []  # exit codes of the times when it ended by itself
        super().__init__(part, log)
        self.part = replace(self.part, prepare=lambda: None)  # a supervisor does that once

    def start(self) -> None:
        self.due = None
        super().start()

    def wait_until_healthy(self, timeout: float = 60) -> None:
        """One that ends on the way is started again, and so is a server that its health depends on: no reason to give
        up."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                return self.part.wait_until_healthy(max(0.0, deadline - time.monotonic()))
            except redis.RedisError:  # the probe's own connection, from before the server went away
                if time.monotonic() > deadline:
                    raise

    def crash(self, how: str, pick: float = 0.0) -> None:
        """SIGKILL to the whole group, to the main process alone, or to one child; starts nothing."""
        with self.lock:
            if not self.alive:
                return
            if how == GROUP:
                family = descendants(self.pid)  # those of PostgreSQL have groups of their own
                self.kill()
                for pid in family:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            elif how == CHILD:
                children = children_of(self.pid)
                if children:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(children[int(pick * len(children))], signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGKILL)
                self.process.wait()  # its children are orphans now; the end of the run finds them
                RUNNING.remove(self)

    def keep_alive(self) -> None:
        """Starts it if it should run and does not: what the supervisor does all the time."""
        with self.lock:
            if not self.wanted or self.alive:
                return
            if self.process.returncode is None:
                self.ends.append(self.process.wait())
                RUNNING.remove(self)
            now = time.monotonic()
            if self.due is None:
                self.record = next_record(self.record, Identity(0, "", 0), 0, now)
                self.due = self.record.waits_until
            if now >= self.due:
                self.start()

    def stay_away(self, how: str = GROUP) -> None:
        with self.lock:
            self.wanted = False
            self.crash(how)

    def come_back(self) -> None:
        with self.lock:
            self.wanted = True
            self.due = self.record = None
            self.keep_alive()

    def end(self, patience: float) -> float:
        """Asks it to end and returns after how many seconds it did; it stays away. Fails after `patience` seconds."""
        with self.lock:
            self.wanted = False
            began = time.monotonic()
            self.ask_to_stop()
            while self.alive and time.monotonic() - began < patience:
                time.sleep(0.01)
            took = time.monotonic() - began
            in_time = not self.alive
            self.kill()
            assert in_time, f"{self.part.name} still ran {patience:g} s after the signal"
            return took


def children_of(pid: int) -> list[int]:
    """The processes that a process has started and that are still there; none where it is gone itself."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def descendants(pid: int) -> list[int]:
    children = children_of(pid)
    return [*children, *(each for child in children for each in descendants(child))]


class System:
    """The running system: its settings, its parts by name, and connections for those who look at it."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.parts: dict[str, Supervised] = {}
        self.closing = threading.Event()
        self.supervisor = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self, names: Sequence[str]) -> None:
        """Starts the servers, makes database and topics, and then starts the pipeline; waits until all is well."""
        with ThreadPoolExecutor(len(SERVERS)) as threads:
            list(threads.map(self.add, SERVERS))
        for name in SERVERS:
            self.parts[name].wait_until_healthy(START_SECONDS)
        schema.upgrade(self.settings)
        topics.create(self.settings)
        for name in names:
            self.add(name)
        self.supervisor.start()
        for name in names:
            self.parts[name].wait_until_healthy(START_SECONDS)

    def whole(self) -> None:
        """Brings back what a test before this one has left away, and waits until all is well."""
        for part in self.parts.values():
            if not part.wanted:
                part.come_back()
        for part in self.parts.values():
            part.wait_until_healthy(START_SECONDS)

    def add(self, name: str) -> Supervised:
        return self.add_part(local_part(self.settings, name))

    def add_part(self, part: Part) -> Supervised:
        supervised = Supervised(part, self.logs / f"{part.name}.log")
        self.parts[part.name] = supervised
        return supervised

    def _supervise(self) -> None:
        while not self.closing.wait(0.02):
            for part in list(self.parts.values()):
                part.keep_alive()

    def stop(self) -> None:
        self.closing.set()
        if self.supervisor.ident is not None:
            self.supervisor.join()
        for part in self.parts.values():
            part.wanted = False
        running = [part for part in self.parts.values() if part.process.returncode is None]
        stop_all([part for part in running if part.part.name in SERVERS])
        for part in running:
            part.kill()
        for pid in marked(self.settings):  # orphans of main processes that were killed
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    @property
    def logs(self) -> Path:
        return Path(self.settings.data_dir) / "logs"

    def log_lines(self, part: str, containing: str) -> list[str]:
        text = (self.logs / f"{part}.log").read_text(errors="replace")
        return [line for line in text.splitlines() if containing in line]

    @contextlib.contextmanager
    def database(self) -> Iterator[Any]:
        """A cursor of a connection of its own, in autocommit."""
        connection = psycopg2.connect(
            host=self.settings.database_address,
            port=self.settings.database_port,
            user=self.settings.database_user,
            password=self.settings.database_password,
            dbname=self.settings.database_name,
            connect_timeout=5,
            application_name="chaos",
        )
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def ask(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self.database() as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())

    def redis(self) -> redis.Redis:
        return redis.Redis(port=self.settings.redis_port, socket_timeout=5, socket_connect_timeout=5)

    def producer(self) -> KafkaProducer:
        """A producer that waits for acks=all, and through any outage of a run."""
        return KafkaProducer(
            **self.settings.kafka_client(),
            acks="all",
            linger_ms=5,
            max_block_ms=180_000,
            delivery_timeout_ms=180_000,
            request_timeout_ms=10_000,
            reconnect_backoff_max_ms=500,
        )


@contextlib.contextmanager
def running_system(
    label: str, *, pipeline: Sequence[str] = PIPELINE, keep_logs: bool = False, **changes: object
) -> Iterator[System]:
    """A system with these settings changed, and `bridges` bridges, until the end of the block. Nothing else uses it.

    With `keep_logs` the parts' logs of a run that failed are left in `.local/logs/chaos-LABEL`.
    """
    folder = Path(tempfile.mkdtemp(prefix="text-pipeline-chaos-"))
    folder.chmod(0o755)  # PostgreSQL started by root runs as nobody
    ports = iter(free_ports(8))
    chosen = Settings(
        data_dir=str(folder),
        kafka_port=next(ports),
        kafka_controller_port=next(ports),
        database_port=next(ports),
        redis_port=next(ports),
        flower_port=next(ports),
        kafka_ui_port=next(ports),
        text_api_port=next(ports),
        search_api_port=next(ports),
        embedding_provider="hashing",
    )
    chosen = replace(chosen, **changes)  # type: ignore[arg-type]
    system = System(chosen)
    kafka_log = logging.getLogger("kafka")
    level = kafka_log.level
    # A failure would drown in what its clients say of each outage, and each of those lines keeps a socket alive.
    kafka_log.setLevel(logging.CRITICAL + 1)
    try:
        system.start([*bridge_names(chosen.bridges), *pipeline])
        yield system
    except BaseException:
        if keep_logs:
            kept = LOCAL / "logs" / f"chaos-{label}"
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(system.logs, kept, ignore_dangling_symlinks=True)
            print(f"the logs of the parts are in {kept.relative_to(LOCAL.parent)}", flush=True)
        raise
    finally:
        system.stop()
        kafka_log.setLevel(level)
        gc.collect()  # sockets that kafka-python has left open: their warnings belong here, where they are expected
        postgres_place.remove_data(chosen)
        shutil.rmtree(folder, ignore_errors=True)


def bridge_names(count: int) -> list[str]:
    return ["bridge"] if count == 1 else [f"bridge-{number}" for number in range(count)]
