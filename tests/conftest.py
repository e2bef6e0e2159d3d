"""Fixtures: real Kafka, PostgreSQL and Valkey on free ports, and for each test a database, topics and a broker.

A server is started when the first test asks for it and serves the whole session. Tests that only need the pipeline
share one running `pipeline` and use ids of their own; tests that alter or kill parts `start` theirs.
"""

import itertools
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest
import redis
from psycopg2 import sql
from sqlalchemy import Engine

from benchmarks.servers import free_ports
from bridge import topics
from db import schema, session
from settings import Settings
from stack import local_part, postgres_place
from tests.parts import RUNNING, Running, service, stop_all
from tests.pipeline import PARTS, Pipeline

TEMPLATE = "template_texts"
NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def system() -> Iterator[Settings]:
    """The settings of the test system: free ports, a folder of its own, the hashing provider. Starts nothing.

    The folder lies where everybody may pass: PostgreSQL started by root runs as nobody.
    """
    folder = Path(tempfile.mkdtemp(prefix="text-pipeline-tests-"))
    folder.chmod(0o755)
    ports = free_ports(8)
    chosen = Settings(
        data_dir=str(folder),
        kafka_port=ports[0],
        kafka_controller_port=ports[1],
        zookeeper_port=ports[2],
        database_port=ports[3],
        redis_port=ports[4],
        flower_port=ports[5],
        kafka_ui_port=ports[6],
        text_api_port=ports[7],
        database_name=TEMPLATE,
        embedding_provider="hashing",
    )
    yield chosen
    postgres_place.remove_data(chosen)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def kafka(system: Settings) -> Iterator[Running]:
    running = service(system, "kafka")
    yield running
    running.kill()


@pytest.fixture(scope="session")
def valkey(system: Settings) -> Iterator[Running]:
    running = service(system, "valkey")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def postgres(system: Settings) -> Iterator[Running]:
    running = service(system, "postgres")
    yield running
    running.stop()


@pytest.fixture(scope="session")
def template(system: Settings, postgres: Running) -> str:
    """The name of a database at the latest migration, to be cloned."""
    schema.upgrade(system)
    return TEMPLATE


def apart(system: Settings, number: int) -> Settings:
    """Settings that share the servers of the session and nothing else."""
    text_api, search_api, flower = free_ports(3)
    return replace(
        system,
        database_name=f"texts_{number}",
        kafka_topic=f"texts-{number}",
        kafka_group_id=f"bridge-{number}",
        # Database 0 is the shared pipeline's, which may be at work beside any test.
        redis_url=f"redis://127.0.0.1:{system.redis_port}/{0 if number == 0 else 1 + number % 15}",
        text_api_port=text_api,
        search_api_port=search_api,
        flower_port=flower,
        data_dir=f"{system.data_dir}/{number}",
    )


def administer(settings: Settings, statement: str, name: str, **more: sql.Composable) -> None:
    """CREATE or DROP DATABASE, which stand outside of transactions."""
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        user=settings.database_user,
        password=settings.database_password,
        dbname="postgres",
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(name=sql.Identifier(name), **more))
    connection.close()


@pytest.fixture
def settings(system: Settings) -> Settings:
    """The settings of this test: a database, topics, a consumer group and a broker of its own, all yet to be made."""
    return apart(system, next(NUMBERS))


@pytest.fixture
def empty_database(settings: Settings, postgres: Running) -> Iterator[Settings]:
    """The test's database without any table."""
    administer(settings, "CREATE DATABASE {name}", settings.database_name)
    yield settings
    administer(settings, "DROP DATABASE {name} WITH (FORCE)", settings.database_name)


def clone(settings: Settings, template: str) -> None:
    origin = sql.Identifier(template)
    administer(settings, "CREATE DATABASE {name} TEMPLATE {origin}", settings.database_name, origin=origin)


@pytest.fixture
def database(settings: Settings, template: str) -> Iterator[Engine]:
    """The test's database at the latest migration, as its owner."""
    clone(settings, template)
    engine = session.connect_engine(settings.database_url(), "test", pool_size=4)
    yield engine
    engine.dispose()
    administer(settings, "DROP DATABASE {name} WITH (FORCE)", settings.database_name)


@pytest.fixture
def reader(settings: Settings, database: Engine) -> Iterator[Engine]:
    """The test's database as the read-only role of the APIs."""
    engine = session.connect_engine(settings.database_url(reader=True), "test", pool_size=2)
    yield engine
    engine.dispose()


@pytest.fixture
def topic(settings: Settings, kafka: Running) -> str:
    """The test's topic; its dead-letter topic is there too."""
    topics.create(settings)
    return settings.kafka_topic


@pytest.fixture
def broker(settings: Settings, valkey: Running) -> Iterator[redis.Redis]:
    """The test's database of Valkey, empty."""
    client = redis.Redis.from_url(settings.redis_address)
    client.flushdb()
    yield client
    client.close()


@pytest.fixture
def start(settings: Settings, database: Engine, topic: str, broker: redis.Redis) -> Iterator[Callable[..., Running]]:
    """`start("bridge", bridge_window=2)` runs a part with the test's settings, some of them changed, until the end."""
    started: list[Running] = []

    def run(name: str, *, wait: bool = True, **changes: object) -> Running:
        chosen = replace(settings, **changes)  # type: ignore[arg-type]
        part = local_part(chosen, name)
        if "bridge_id" in changes:  # the local stack numbers its bridges itself
            part = replace(part, environment={**part.environment, "BRIDGE_ID": chosen.bridge_id})
        running = Running(part, Path(settings.data_dir) / "logs" / f"{name}-{len(started)}.log")
        started.append(running)
        if wait:
            running.wait_until_healthy()
        return running

    yield run
    stop_all(running for running in started if running.process.returncode is None)


@pytest.fixture(scope="session")
def shared_pipeline(system: Settings, template: str, kafka: Running, valkey: Running) -> Iterator[Pipeline]:
    """The whole pipeline, started once; `pipeline` is what tests ask for."""
    chosen = apart(system, 0)
    clone(chosen, template)
    topics.create(chosen)
    logs = Path(chosen.data_dir) / "logs"
    running = {name: Running(local_part(chosen, name), logs / f"{name}.log") for name in PARTS}
    try:
        for each in running.values():
            each.wait_until_healthy()
        with Pipeline(chosen, running) as shared:
            yield shared
    finally:
        stop_all(running.values())


@pytest.fixture
def pipeline(shared_pipeline: Pipeline) -> Iterator[Pipeline]:
    """The shared pipeline: bridge, workers, beat and both APIs. Use ids of your own, and leave every part as it is."""
    yield shared_pipeline
    dead = [name for name, running in shared_pipeline.running.items() if not running.alive]
    assert not dead, f"ended during the test: {', '.join(dead)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    for running in RUNNING:
        running.shown_from = running.log.stat().st_size
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for running in RUNNING:
            if tail := running.log_tail():
                report.sections.append((f"log of {running.part.name}", tail))
    return report


def pytest_configure() -> None:
    """Ended from outside, a run still ends its parts, as it does after Ctrl-C.

    In the background of a script a run is begun with SIGINT ignored, which the commands that it starts would inherit:
    with a handler here they start with the default, so that tests can interrupt them.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Whatever went wrong before: no part outlives the run."""
    for running in list(RUNNING):
        running.kill()
