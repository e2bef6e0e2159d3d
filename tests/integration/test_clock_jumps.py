"""Wall clocks that jump by a day or by ten years, in real processes: nothing stands still, nothing is lost.

A process under test reads its clock through a `sitecustomize` of the test's: the time plus the seconds in a file.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from kafka import KafkaProducer
from sqlalchemy import Engine

from settings import Settings
from stack import local_part
from tests.parts import Running, eventually, stop_all
from tests.samples import ask, run

DAY = 24 * 3600
PARTS = ("persist-worker", "embed-worker", "bridge", "beat")
AT_ONCE = [dict.fromkeys(PARTS, jump) for jump in (DAY, 0.0, -DAY, 3650 * DAY, -3650 * DAY)]
# Machines whose clocks disagree: by a little more than a minute, and by years.
APART = [
    {"embed-worker": 90.0, "persist-worker": -90.0, "bridge": 0.0, "beat": -90.0},
    {"embed-worker": -DAY, "persist-worker": 3650.0 * DAY, "bridge": DAY, "beat": -3650.0 * DAY},
]

JUMPING = """
import datetime, os, time

real_time, real_datetime = time.time, datetime.datetime

def jumped():
    with open(os.environ["JUMP_FILE"]) as stream:
        return real_time() + float(stream.read() or 0)

class LikeDatetime(type):
    def __instancecheck__(cls, other):
        return isinstance(other, real_datetime)

class Jumped(real_datetime, metaclass=LikeDatetime):
    @classmethod
    def now(cls, tz=None):
        return real_datetime.fromtimestamp(jumped(), tz)

    @classmethod
    def utcnow(cls):
        return real_datetime.fromtimestamp(jumped(), datetime.timezone.utc).replace(tzinfo=None)

time.time = jumped
time.time_ns = lambda: int(jumped() * 1e9)
datetime.datetime = Jumped
"""


class Clocks:
    """Starts parts with a clock each that the test may set."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.running: list[Running] = []
        (folder / "sitecustomize.py").write_text(JUMPING)

    def start(self, name: str, jump: float = 0) -> Running:
        self.set(name, jump)
        part = local_part(self.settings, name)
        changes = {"PYTHONPATH": str(self.folder), "JUMP_FILE": str(self.folder / name)}
        running = Running(replace(part, environment={**part.environment, **changes}), self.folder / f"{name}.log")
        self.running.append(running)
        running.wait_until_healthy()
        return running

    def set(self, name: str, jump: float) -> None:
        new = self.folder / f"{name}.new"
        new.write_text(str(jump))
        new.replace(self.folder / name)


@pytest.fixture
def clocks(settings: Settings, database: Engine, topic: str, broker: redis.Redis, tmp_path: Path) -> Iterator[Clocks]:
    made = Clocks(settings, tmp_path)
    yield made
    stop_all(each for each in made.running if each.process.returncode is None)


@pytest.mark.timeout(240)
def test_wherever_the_clocks_stand_records_and_rows_are_embedded(
    settings: Settings, database: Engine, producer: KafkaProducer, clocks: Clocks
) -> None:
    for name in PARTS:
        clocks.start(name)
    for number, jumps in enumerate([dict.fromkeys(PARTS, 0.0), *AT_ONCE, *APART]):
        for name, jump in jumps.items():
            clocks.set(name, jump)
        producer.send(settings.kafka_topic, json.dumps({"text": f"record {number}"}).encode()).get(10)
        # What is typed is found by the sweep alone: beat and both workers have to be at it.
        run(database, "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), :text)", text=f"row {number}")
        expected = {f"{what} {number}" for what in ("record", "row")}
        wait_until_embedded(database, expected)
    assert ask(database, "SELECT * FROM dead_letters") == ask(database, "SELECT * FROM embedding_failures") == []


@pytest.mark.timeout(240)
def test_a_clock_of_the_database_that_was_set_back_holds_no_job_for_long(
    settings: Settings, database: Engine, clocks: Clocks
) -> None:
    """What was reserved or leased by the old clock lies ahead of the new one."""
    for number in range(2):
        run(database, "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), :text)", text=f"row {number}")
    run(database, "UPDATE embedding_jobs SET available_at = available_at + INTERVAL '16 min'")
    run(database, "UPDATE embedding_jobs SET lease = gen_random_uuid() WHERE id = (SELECT max(id) FROM embedding_jobs)")
    for name in ("persist-worker", "embed-worker", "beat"):
        clocks.start(name)
    wait_until_embedded(database, {"row 0", "row 1"})


def wait_until_embedded(database: Engine, texts: set[str]) -> None:
    query = "SELECT message FROM text_messages WHERE id IN (SELECT message_id FROM message_embeddings)"
    eventually(lambda: texts <= {row["message"] for row in ask(database, query)}, timeout=30)
