"""A steady flow of small records, and when each of them was sent, stored and embedded: what recovery is measured by."""

import contextlib
import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Self

import psycopg2

from tests.chaos.oracle import NAMESPACE
from tests.chaos.system import System

LOOK_SECONDS = 0.03

STATE = """
    SELECT t.id::text, EXISTS (
        SELECT FROM message_embeddings e WHERE e.message_id = t.id AND e.content_hash = t.content_hash)
    FROM text_messages t WHERE t.id = ANY (%s::uuid[])
"""
# Every attempt after a job's first one, whatever becomes of the job.
AUDIT = """
    CREATE TABLE IF NOT EXISTS chaos_attempts (job BIGINT, attempts INTEGER, at TIMESTAMPTZ DEFAULT clock_timestamp());
    CREATE OR REPLACE FUNCTION chaos_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO chaos_attempts (job, attempts) VALUES (NEW.id, NEW.attempts);
        RETURN NULL;
    END $$;
    CREATE OR REPLACE TRIGGER chaos_attempt AFTER UPDATE ON embedding_jobs
        FOR EACH ROW WHEN (NEW.attempts > OLD.attempts AND NEW.attempts > 1) EXECUTE FUNCTION chaos_attempt();
    TRUNCATE chaos_attempts;
"""


class Flow:
    """Sends `size` records every `interval` seconds, from `with` to its end. Times are those of time.monotonic()."""

    numbers = itertools.count(1)

    def __init__(self, system: System, interval: float = 0.05, size: int = 1) -> None:
        self.system = system
        self.interval = interval
        self.size = size
        self.name = f"flow-{next(self.numbers)}"
        self.sent: dict[str, float] = {}
        self.stored: dict[str, float] = {}
        self.embedded: dict[str, float] = {}
        self.sending = threading.Event()
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=target, name=target.__name__, daemon=True) for target in (self._send, self._look)
        ]

    def __enter__(self) -> Self:
        with self.system.database() as cursor:
            cursor.execute(AUDIT)
        for thread in self.threads:
            thread.start()
        self.wait(lambda: len(self.embedded) > 20, 60)
        return self

    def __exit__(self, *_: object) -> None:
        self.sending.set()
        self.ending.set()
        for thread in self.threads:
            thread.join(200)

    def _send(self) -> None:
        with contextlib.closing(self.system.producer()) as producer:
            number = 0
            while not self.sending.wait(self.interval):
                for _ in range(self.size):
                    number += 1
                    given = f"{self.name}-{number}"
                    value = f'{{"id": "{given}", "text": "number {number} of {self.name}"}}'.encode()
                    self.sent[str(uuid.uuid5(NAMESPACE, given))] = time.monotonic()
                    producer.send(self.system.settings.kafka_topic, value, key=given.encode())

    def _look(self) -> None:
        while not self.ending.is_set():
            away = contextlib.suppress(psycopg2.OperationalError, psycopg2.InterfaceError)
            with away, self.system.database() as cursor:
                while not self.ending.wait(LOOK_SECONDS):
                    self._sample(cursor)
            self.ending.wait(LOOK_SECONDS)

    def _sample(self, cursor: psycopg2.extensions.cursor) -> None:
        open_ids = [message_id for message_id in list(self.sent) if message_id not in self.embedded]
        cursor.execute(STATE, (open_ids,))
        rows = cursor.fetchall()
        now = time.monotonic()
        for message_id, ready in rows:
            self.stored.setdefault(message_id, now)
            if ready:
                self.embedded[message_id] = now

    def wait(self, condition, timeout: float) -> None:  # type: ignore[no-untyped-def]
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"still not so after {timeout:g} s: {self}"
            time.sleep(0.01)

    def __repr__(self) -> str:
        return f"{self.name}: {len(self.sent)} sent, {len(self.stored)} stored, {len(self.embedded)} embedded"

    def first_after(self, moment: float, timeout: float) -> tuple[float, float]:
        """Waits for a record sent after a moment; returns when the first of these was stored, and when embedded."""

        def of(times: dict[str, float]) -> list[float]:
            return [at for message_id, at in list(times.items()) if self.sent[message_id] > moment]

        self.wait(lambda: of(self.embedded), timeout)
        return min(of(self.stored)), min(of(self.embedded))

    def all_before(self, moment: float, timeout: float) -> float:
        """Waits until every record sent before a moment is embedded; returns when the last one was."""
        before = [message_id for message_id, at in list(self.sent.items()) if at < moment]
        self.wait(lambda: all(message_id in self.embedded for message_id in before), timeout)
        return max(self.embedded[message_id] for message_id in before)

    def finish(self, timeout: float = 120) -> None:
        """Sends no more, and waits until everything is embedded."""
        self.sending.set()
        self.threads[0].join(200)
        self.wait(lambda: len(self.embedded) == len(self.sent), timeout)

    def slowest(self, ids: Sequence[str] | None = None) -> float:
        """The longest time from sending to the vector."""
        return max(self.embedded[each] - self.sent[each] for each in ids or list(self.embedded))

    def second_attempts(self) -> list[tuple[object, ...]]:
        """Jobs of the embedding that were counted as tried more than once since the flow began: (job, attempts)."""
        return self.system.ask("SELECT job, max(attempts) FROM chaos_attempts GROUP BY job")

    def dead_or_failed(self) -> int:
        return int(
            self.system.ask("SELECT (SELECT count(*) FROM dead_letters) + (SELECT count(*) FROM embedding_failures)")[
                0
            ][0]
        )
