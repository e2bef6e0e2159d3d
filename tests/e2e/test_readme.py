"""The README's commands, typed one after the other on a system that its own first line has started."""

import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from benchmarks.servers import free_ports
from settings import ROOT
from tests.e2e.conftest import Checkout
from tests.parts import eventually

# What a session runs until it is stopped, and what it says when it is ready.
LASTING = {"celery -A tasks.app worker -Q embed": ".> embed"}
# This very run.
LEFT_OUT = {"make test"}


def commands(page: Path) -> list[str]:
    """The lines of the page's shell blocks; a line that ends with a backslash goes on."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines() if line.strip()]


@contextmanager
def by_hand(checkout: Checkout, line: str, ready: str, **variables: str) -> Iterator[None]:
    """Runs what lasts until it is stopped, from when it has said that it is ready. It leaves nothing behind, whatever
    becomes of the test."""
    process = checkout.start(line, **variables)
    assert process.stdout is not None
    watchdog = threading.Timer(60, process.kill)
    watchdog.start()
    try:
        said = ""
        while ready not in said:
            read = process.stdout.readline()
            assert read, f"{line} ended:\n{said}"
            said += read
        watchdog.cancel()
        yield
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


@pytest.mark.timeout(600)
def test_the_commands_of_the_readme(checkout: Checkout) -> None:
    typed = commands(ROOT / "README.md")
    assert typed[:2] == ["./start.sh", "./e2e_test.sh"]
    outputs: dict[str, str] = {}
    for line in typed:
        if line in LASTING:
            with by_hand(checkout, f"source .venv/bin/activate && exec {line}", LASTING[line]):
                pass
        elif line not in LEFT_OUT:
            outputs[line] = checkout.run(line)
    # Each e2e_test.sh has shown its seven checks, the second one after a migration was added.
    assert outputs["./e2e_test.sh"].count("✓") == 7
    assert outputs["./stop.sh && ./start.sh && ./e2e_test.sh"].count("✓") >= 7
    assert "Hello from Kafka" in outputs["curl http://localhost:5002/messages/test-123"]
    assert "Hello over REST" in outputs['curl "http://localhost:5002/messages?limit=10"']


@pytest.mark.timeout(600)
def test_the_same_on_kafka_with_zookeeper(checkout: Checkout) -> None:
    checkout.environment |= {"KAFKA_COORDINATION": "zookeeper", "EMBEDDING_PROVIDER": "hashing"}
    started = checkout.run("./start.sh --no-demo")
    assert "zookeeper" in started.lower()
    assert checkout.run("./e2e_test.sh").count("✓") == 7
    status = checkout.run("./status.sh")
    assert re.search(rf"zookeeper.*running.*{checkout.ports['42181']}", status), status


@pytest.mark.timeout(300)
def test_a_supervised_part_that_is_killed_comes_back(checkout: Checkout) -> None:
    checkout.environment |= {"EMBEDDING_PROVIDER": "hashing"}
    checkout.run("./start.sh --no-demo")
    assert "running" in checkout.run("./start.sh").lower()  # a second start only says so
    before = checkout.run("./status.sh")
    pid = re.search(r"persist-worker\S*\s.*?(\d{2,})", before)
    assert pid, before
    checkout.run(f"kill -9 {pid[1]}")

    def back() -> bool:
        now = checkout.run("./status.sh || true")
        again = re.search(r"persist-worker\S*\s.*?(\d{2,})", now)
        return bool(again and again[1] != pid[1] and "running" in again[0])

    eventually(back, timeout=30, interval=0.5)
    assert checkout.run("./e2e_test.sh").count("✓") == 7

    check_the_parts_by_hand(checkout)


def check_the_parts_by_hand(checkout: Checkout) -> None:
    """Beside the running system, in the environment that a user has activated; the bridge in any Python."""
    (port,) = free_ports(1)
    activated = "source .venv/bin/activate && exec "
    for line in ("celery -A tasks.app worker -Q persist", "celery -A tasks.app worker -Q embed"):
        with by_hand(checkout, activated + line, f".> {line.split()[-1]}"):
            pass
    with by_hand(checkout, f"{activated}celery -A tasks.app beat --pidfile=", "maxinterval"):
        pass
    with by_hand(checkout, f"exec {sys.base_prefix}/bin/python3 -m bridge", "reading text-messages"):
        pass
    flower = f"{activated}celery -A tasks.app flower"
    with by_hand(checkout, flower, "Visit me", FLOWER_PORT=str(port), FLOWER_BASIC_AUTH="somebody:secret"):
        assert eventually(lambda: requests.get(f"http://127.0.0.1:{port}/").status_code, timeout=10) == 401
        with pytest.raises(requests.ConnectionError):  # it listens at one address, not at all of them
            requests.get(f"http://127.0.0.2:{port}/")
