"""Watching a run: no committed offset may be beyond what is durable, at no moment; and what the parts use.

A sample reads the committed offsets first and the database after that. So whatever the bridge commits too early is
missing in the database at the time of the look, unless it arrives within those milliseconds.
"""

import contextlib
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import psycopg2
import redis
from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError

from tests.chaos import log_reader
from tests.chaos.oracle import Bad, effect
from tests.chaos.system import Supervised, System, descendants

# Kafka or PostgreSQL is away: what is committed then stays to be looked at by the next sample.
AWAY = (KafkaError, OSError, psycopg2.OperationalError, psycopg2.InterfaceError)
END_SECONDS = 60.0

MISSING = """
    SELECT r.partition, r."offset" FROM unnest(%s::uuid[], %s::bigint[], %s::int[], %s::bigint[])
        AS r (id, timestamp, partition, "offset")
    WHERE NOT EXISTS (SELECT FROM text_messages t WHERE t.id = r.id
            AND (t.version_timestamp, t.version_partition, t.version_offset) >= (r.timestamp, r.partition, r."offset"))
        AND NOT EXISTS (SELECT FROM deleted_messages d WHERE d.id = r.id
            AND (d.version_timestamp, d.version_partition, d.version_offset) >= (r.timestamp, r.partition, r."offset"))
"""
MISSING_LETTERS = """
    SELECT r.partition, r."offset" FROM unnest(%s::int[], %s::bigint[]) AS r (partition, "offset")
    WHERE NOT EXISTS (SELECT FROM dead_letters d
        WHERE d.topic = %s AND d.partition = r.partition AND d."offset" = r."offset")
"""


def not_durable(cursor: Any, records: Sequence[ConsumerRecord]) -> list[tuple[int, int]]:
    """Those of the records, by partition and offset, whose effect the database does not have."""
    effects = [(record, effect(record)) for record in records]
    bad = [record for record, found in effects if isinstance(found, Bad)]
    good = [found for _, found in effects if not isinstance(found, Bad)]
    missing: list[tuple[int, int]] = []
    if good:
        columns = [[found.version[place] for found in good] for place in range(3)]
        cursor.execute(MISSING, ([found.id for found in good], *columns))
        missing += cursor.fetchall()
    if bad:
        places = [record.partition for record in bad], [record.offset for record in bad]
        cursor.execute(MISSING_LETTERS, (*places, bad[0].topic))
        missing += cursor.fetchall()
    return missing


class CommitWatch:
    """Samples the commits all the time, in a thread; `violations` has what was committed and not durable."""

    def __init__(self, system: System, interval: float = 0.2) -> None:
        self.system = system
        self.interval = interval
        self.samples = 0
        self.checked = 0
        self.moved_back = 0
        self.violations: list[str] = []
        self.error: BaseException | None = None
        self.ahead: dict[int, list[ConsumerRecord]] = {}  # read, and not known to be durable
        self.position: dict[int, int] = {}  # of the reading, by partition
        self.done: dict[int, int] = {}  # committed when it was looked at last
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="commit watch", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join(2 * END_SECONDS)
        if self.thread.is_alive():
            self.violations.append("the watch itself hangs")
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            with contextlib.closing(log_reader.connect(self.system.settings)) as log:
                while not self.ending.is_set():
                    with contextlib.suppress(*AWAY), log_reader.asking(self.system.settings) as admin:
                        while not self.ending.is_set():
                            self._read(log)
                            self._sample(log_reader.committed(self.system.settings, admin))
                    self._read(log)
                self._look_once_more(log)
        except BaseException as error:  # noqa: BLE001 - raised again at the end, in the test's own thread
            self.error = error

    def _read(self, log: KafkaConsumer) -> None:
        for part, records in log.poll(timeout_ms=int(self.interval * 1000)).items():
            self.ahead.setdefault(part.partition, []).extend(records)
            self.position[part.partition] = records[-1].offset + 1

    def _look_once_more(self, log: KafkaConsumer) -> None:
        """Reads up to the commits, so that each record is looked at before the end."""
        deadline = time.monotonic() + END_SECONDS
        with log_reader.asking(self.system.settings) as admin:
            committed = log_reader.committed(self.system.settings, admin)
            while any(self.position.get(partition, 0) < offset for partition, offset in committed.items()):
                assert time.monotonic() < deadline, f"read to {self.position}, committed to {committed}"
                self._read(log)
            self._sample(committed)

    def _sample(self, committed: dict[int, int]) -> None:
        due: list[ConsumerRecord] = []
        for partition, offset in committed.items():
            self.moved_back += offset < self.done.get(partition, 0)
            self.done[partition] = offset
            due += [record for record in self.ahead.get(partition, ()) if record.offset < offset]
        if due:
            with self.system.database() as cursor:
                for partition, offset in not_durable(cursor, due):
                    self.violations.append(
                        f"partition {partition} is committed to {committed[partition]}, but the effect of the record "
                        f"at {offset} is not in the database"
                    )
            for partition, offset in committed.items():
                self.ahead[partition] = [each for each in self.ahead.get(partition, ()) if each.offset >= offset]
        self.checked += len(due)
        self.samples += 1


class Memory:
    """Samples what each part and Redis use, once a second, in a thread.

    Of a part it is the proportional set size of all its processes in MB, so that shared memory counts once.
    """

    def __init__(self, system: System, interval: float = 1.0) -> None:
        self.system = system
        self.interval = interval
        self.parts: dict[str, list[float]] = {}
        self.redis: list[float] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join(30)

    def _run(self) -> None:
        while not self.ending.wait(self.interval):
            began = time.monotonic()
            for name, part in self.system.parts.items():
                self.parts.setdefault(name, []).append(used_mb(part))
            with contextlib.suppress(redis.RedisError), contextlib.closing(self.system.redis()) as client:
                self.redis.append(client.info("memory")["used_memory"] / 1e6)
            self.ending.wait(max(0.0, (time.monotonic() - began) * 4))  # looking shall cost a fifth of a core at most


def used_mb(part: Supervised) -> float:
    total = 0
    for pid in (part.pid, *descendants(part.pid)):
        with contextlib.suppress(OSError):  # it may end meanwhile
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total / 1024
