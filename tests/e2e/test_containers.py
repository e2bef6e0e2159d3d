"""The system in containers, with docker compose for real: the commands of docs/containers.md, from nothing to nothing.

Takes minutes, most of them for building the image, so only `make containers` runs it. It has a compose project, ports
and volumes of its own, and so stands beside a running system.
"""

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.servers import free_ports
from settings import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.timeout(3_000)]

PROJECT = "text-pipeline-test"
VARIABLES = [
    "TEXT_API_PORT",
    "SEARCH_API_PORT",
    "DATABASE_PORT",
    "KAFKA_PORT",
    "REDIS_PORT",
    "FLOWER_PORT",
    "KAFKA_UI_PORT",
]
SECONDS = 600.0

# Sends a signal to what the init process of a container has started; a health check that runs just then is not meant.
SIGNAL = """
import os, re, signal, sys
for pid in filter(str.isdigit, os.listdir("/proc")):
    if re.search(r"\\) \\w 1 ", open(f"/proc/{pid}/stat").read()):
        os.kill(int(pid), signal.Signals[sys.argv[1]])
"""


# Prints the modules of a worker and of its health check that Python had to compile: bytecode counts only with the time
# and the size of its source (https://peps.python.org/pep-0552/).
COMPILED = """
import os, sys
import telemetry.heartbeat
from tasks.app import app
app.loader.import_default_modules()

def is_compiled(module):
    if not os.path.exists(module.__cached__):
        return False
    with open(module.__cached__, "rb") as file:
        _magic, _flags, *found = (int.from_bytes(file.read(4), "little") for _ in range(4))
    source = os.stat(module.__file__)
    return found == [int(source.st_mtime) & 0xFFFFFFFF, source.st_size & 0xFFFFFFFF]

modules = [module for module in sys.modules.values() if getattr(module, "__cached__", None)]
assert len(modules) > 500
print([module.__name__ for module in modules if not is_compiled(module)])
"""


class Compose:
    """`docker compose` with this project's ports; every call fails with what compose has said."""

    def __init__(self, docker: str) -> None:
        self.docker = docker
        self.ports = dict(zip(VARIABLES, map(str, free_ports(len(VARIABLES))), strict=True))
        self.environment = {**os.environ, **self.ports, "COMPOSE_PROJECT_NAME": PROJECT}

    def run(self, *arguments: str, input: str | None = None, seconds: float = 2_000) -> str:
        answer = subprocess.run(
            [self.docker, "compose", *arguments],
            cwd=ROOT,
            env=self.environment,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=seconds,
        )
        assert answer.returncode == 0, f"{' '.join(arguments)}\n{answer.stdout[-2000:]}\n{answer.stderr[-4000:]}"
        return answer.stdout

    def containers(self, *services: str) -> list[dict[str, Any]]:
        answer = self.run("ps", "-a", "--format", "json", *services)
        return json.loads(answer) if answer.startswith("[") else [json.loads(line) for line in answer.splitlines()]

    def get(self, variable: str, path: str) -> Any:
        """The document at a path of what is published at a port; None where there is no answer, or an error."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[variable]}{path}", timeout=20) as answer:
                return json.load(answer)
        except (OSError, urllib.error.URLError):
            return None

    def healthy(self, *services: str) -> bool:
        found = [each for each in self.containers(*services) if each["Service"] != "migrate"]
        return bool(found) and all(
            each["State"] == "running" and each.get("Health") in ("healthy", "", None) for each in found
        )

    def crash(self, service: str) -> None:
        """Kills a container's process behind docker's back, as the kernel would for want of memory."""
        identity = self.run("ps", "-q", service).split()[0]
        form = ["inspect", "-f", "{{.State.Pid}}", identity]
        pid = subprocess.run([self.docker, *form], capture_output=True, text=True, check=True).stdout
        os.kill(int(pid), 9)


def eventually(check: Callable[[], Any], what: str, seconds: float = SECONDS) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(1)
    return found


@pytest.fixture(scope="module")
def compose() -> Iterator[Compose]:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True).returncode != 0:
        pytest.skip("there is no docker compose here")
    if subprocess.run([docker, "info"], capture_output=True).returncode != 0:
        pytest.skip("no docker engine answers here")
    compose = Compose(docker)
    try:
        compose.run("up", "-d", "--build", "text-writer-service")
        compose.run("up", "-d")
        eventually(compose.healthy, "every container healthy")
        yield compose
    finally:
        compose.run("down", "-v", "--remove-orphans")
        left = [docker, "volume", "ls", "-q", "--filter", f"label=com.docker.compose.project={PROJECT}"]
        assert subprocess.run(left, capture_output=True, text=True).stdout == ""


def send(compose: Compose, *values: dict[str, Any]) -> None:
    producer = ["kafka-console-producer", "--topic", "text-messages", "--bootstrap-server", "localhost:9092"]
    lines = "".join(f"{json.dumps(value)}\n" for value in values)
    compose.run("exec", "-T", "kafka", *producer, input=lines)


def test_a_text_goes_through_all_containers(compose: Compose) -> None:
    topics = compose.run("exec", "-T", "kafka", "kafka-topics", "--bootstrap-server", "localhost:9092", "--list")
    assert {"text-messages", "text-messages.dead-letters"} <= set(topics.split())
    assert "accepting connections" in compose.run("exec", "-T", "postgres", "pg_isready", "-U", "postgres")
    send(compose, {"id": "test-123", "text": "Hello Kafka"})
    found = eventually(lambda: compose.get("TEXT_API_PORT", "/messages/test-123"), "the message")
    assert found["message"] == "Hello Kafka"
    assert "Listening at" in compose.run("logs", "text-writer-service")


def test_the_checks_of_the_running_system_pass(compose: Compose) -> None:
    checks = subprocess.run(
        [str(ROOT / "e2e_test.sh")], env=compose.environment, capture_output=True, text=True, timeout=300
    )
    assert checks.returncode == 0, checks.stdout + checks.stderr


def test_replicas_share_the_port_and_one_that_goes_is_not_missed(compose: Compose) -> None:
    compose.run("up", "-d", "--scale", "text-writer-service=2")
    eventually(lambda: compose.healthy("text-writer-service"), "both replicas healthy")
    assert len(compose.containers("text-writer-service")) == 2
    compose.crash("text-writer-service")
    for _ in range(50):
        assert compose.get("TEXT_API_PORT", "/messages?limit=1") is not None


def test_no_start_has_anything_to_compile(compose: Compose) -> None:
    assert compose.run("exec", "-T", "persist-worker", "python", "-c", COMPILED) == "[]\n"


def test_workers_are_scaled(compose: Compose) -> None:
    compose.run("up", "-d", "--scale", "embed-worker=3")
    eventually(lambda: compose.healthy("embed-worker"), "three workers healthy")
    assert len(compose.containers("embed-worker")) == 3


@pytest.mark.parametrize("service", ["bridge", "persist-worker", "embed-worker", "redis", "postgres", "kafka"])
def test_what_crashes_comes_back_and_nothing_is_lost(service: str, compose: Compose) -> None:
    texts = [{"id": f"{service}-{number}", "text": f"text {number} beside {service}"} for number in range(200)]
    send(compose, *texts[:100])
    compose.crash(service)
    eventually(lambda: compose.healthy(service), f"{service} healthy again")
    send(compose, *texts[100:])

    def embedded() -> bool:
        query = (
            "SELECT count(*) FROM text_messages m JOIN message_embeddings e ON e.message_id = m.id "
            f"WHERE source_id LIKE '{service}-%'"
        )
        psql = ["psql", "-U", "postgres", "-d", "text_messages_db", "-Atc", query]
        return compose.run("exec", "-T", "postgres", *psql).strip() == "200"

    eventually(embedded, "all of the texts, with their vectors")


@pytest.mark.parametrize("service", ["bridge", "persist-worker", "beat"])
def test_a_loop_that_hangs_is_no_health(service: str, compose: Compose) -> None:
    eventually(lambda: compose.healthy(service), f"{service} healthy")
    compose.run("exec", "-T", service, "python", "-c", SIGNAL, "SIGSTOP")
    try:
        eventually(lambda: not compose.healthy(service), "unhealthy")
    finally:
        compose.run("exec", "-T", service, "python", "-c", SIGNAL, "SIGCONT")
    eventually(lambda: compose.healthy(service), "healthy again")
