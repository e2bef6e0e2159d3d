"""The pipeline on three hosts, which are network namespaces: servers, intake and workers reach each other by address
only, and a cable is pulled while records flow."""

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from kafka import KafkaProducer

from bridge import topics
from db import schema, session
from settings import ROOT, Settings
from stack import Part, kafka, local_part, postgres_place, probes
from tests.hosts import Host, hosts
from tests.integration.test_bridge import all_committed, stored
from tests.parts import Running, eventually, missing, stop_all
from tests.samples import ask, embedded

INTAKE = ("bridge", "beat", "text-api")
WORKERS = ("persist-worker", "persist-worker-2", "embed-worker", "embed-worker-2")


def servers(system: Settings, there: Settings, host: Host) -> Iterator[Part]:
    """Kafka, PostgreSQL and Valkey as parts of a host, open to its network and asked for their health over it."""
    if not any(kafka.jars(system).glob("lib/*.jar")):
        missing("Kafka is not installed: run `make install`")
    listener = f"PLAINTEXT://{host.address}:{system.kafka_port}"
    controller = f"CONTROLLER://127.0.0.1:{system.kafka_controller_port}"
    logins = Path(system.data_dir) / "pg_hba.conf"
    logins.write_text("host all all all scram-sha-256\n")
    logins.chmod(0o644)
    options: dict[str, tuple[list[str], Callable[[], str | None]]] = {
        "kafka": (
            [
                *("--override", f"listeners={listener},{controller}"),
                *("--override", f"advertised.listeners={listener}"),
            ],
            lambda: probes.kafka(there),
        ),
        "postgres": (
            ["-c", "listen_addresses=*", "-c", f"hba_file={logins}"],
            lambda: probes.database(there, create=True),
        ),
        "valkey": (["--bind", host.address, "--protected-mode", "no"], lambda: probes.redis(there)),
    }
    for name, (more, problem) in options.items():
        part = local_part(system, name)
        yield host.run(replace(part, command=[*part.command, *more], problem=problem))


def is_away(host: Host) -> bool:
    """Whether not even a refusal comes back."""
    return "refused" not in (probes.tcp(host.address, 9) or "")


@pytest.mark.timeout(300)
def test_three_hosts_work_together_and_a_pulled_cable_loses_nothing(system: Settings, tmp_path: Path) -> None:
    with ExitStack() as stack:
        data, intake, work = stack.enter_context(hosts("data", "intake", "work"))
        folder = Path(system.data_dir) / "hosts"
        folder.mkdir()
        here = replace(system, data_dir=str(folder), database_name="texts_on_hosts", kafka_topic="texts-on-hosts")
        there = replace(
            here,
            kafka_bootstrap_servers=f"{data.address}:{here.kafka_port}",
            database_host=data.address,
            redis_url=f"redis://{data.address}:{here.redis_port}/0",
            bind_host=intake.address,
        )
        running: dict[str, Running] = {}
        stack.callback(lambda: postgres_place.remove_data(here))
        stack.callback(lambda: stop_all(running.values()))

        def start(part: Part) -> Running:
            running[part.name] = Running(part, tmp_path / f"{part.name}.log")
            return running[part.name]

        for part in servers(here, there, data):
            start(part).wait_until_healthy()
        schema.upgrade(there)
        topics.create(there)
        for host, names in ((intake, INTAKE), (work, WORKERS)):
            for name in names:
                start(host.run(local_part(replace(there, persist_workers=2, embed_workers=2), name)))
        for each in running.values():
            each.wait_until_healthy()

        database = session.connect_engine(there.database_url(), "test")
        stack.callback(database.dispose)
        producer = stack.enter_context(KafkaProducer(**there.kafka_client(), acks="all"))
        numbers = itertools.count()

        def send(count: int) -> None:
            for number in itertools.islice(numbers, count):
                value = {"id": f"n-{number % 1_500}", "text": f"text {number}"}  # the later ones are edits
                producer.send(there.kafka_topic, json.dumps(value).encode(), key=value["id"].encode())
            producer.flush()

        def everything_is_there(count: int) -> bool:
            assert set(stored(database).values()) == {
                f"text {number}" for number in range(max(0, count - 1_500), count)
            }
            assert len(embedded(database)) == min(count, 1_500)
            return all_committed(there)

        send(1_000)
        eventually(lambda: everything_is_there(1_000), timeout=60)
        for host in (work, intake, data):
            send(200)
            host.unplug()
            if host is not data:  # where Kafka stands, and this test sends over the network too
                send(200)
            eventually(partial(is_away, host))
            host.plug_in()
            send(200)
        sent = next(numbers)
        eventually(lambda: everything_is_there(sent), timeout=90)
        assert len(ask(database, "SELECT FROM text_messages")) == 1_500
        assert not ask(database, "SELECT FROM dead_letters")
        dead = [name for name, each in running.items() if not each.alive]
        assert not dead


HOLDER = """
import sys, time
from sqlalchemy import text
from db import session
with session.connect_engine(sys.argv[1], "vanished").connect() as connection:
    connection.execute(text("SELECT pg_advisory_lock(1)"))
    connection.commit()
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.timeout(180)
def test_a_host_that_vanishes_lets_go_of_its_locks(system: Settings, tmp_path: Path) -> None:
    """With no word to the server, which waits for none: the lock is of a session that is idle."""
    with ExitStack() as stack:
        data, gone = stack.enter_context(hosts("data", "gone"))
        here = replace(system, data_dir=str(Path(system.data_dir) / "vanished"), database_name="texts_of_vanished")
        Path(here.data_dir).mkdir()
        there = replace(here, database_host=data.address)
        stack.callback(lambda: postgres_place.remove_data(here))
        (part,) = (part for part in servers(here, there, data) if part.name == "postgres")
        postgres = Running(part, tmp_path / "postgres.log")
        stack.callback(postgres.stop)
        postgres.wait_until_healthy()
        holder = subprocess.Popen(
            ["ip", "netns", "exec", gone.name, sys.executable, "-c", HOLDER, there.database_url()],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.enter_context(holder)
        stack.callback(holder.kill)
        database = session.connect_engine(there.database_url(), "test")
        stack.callback(database.dispose)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        held = "SELECT FROM pg_locks WHERE locktype = 'advisory'"
        assert ask(database, held) != []
        gone.unplug()
        eventually(lambda: ask(database, held) == [], timeout=60)
        assert holder.poll() is None
