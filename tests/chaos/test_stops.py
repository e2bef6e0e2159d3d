"""SIGTERM to each part under load: it ends within ten seconds, and what it held is neither lost nor waited for."""

import time
from collections.abc import Iterator

import pytest

from tests.chaos import report
from tests.chaos.flow import Flow
from tests.chaos.run import settle
from tests.chaos.system import PIPELINE, SERVERS, System, running_system

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]

TITLE = "Orderly end (SIGTERM) under load"
COLUMNS = ("part", "ends after (s)", "next record embedded (s after its return)", "slowest record (s)")
STOP_SECONDS = 10.0


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system("stops", keep_logs=True) as started:
        yield started


@pytest.mark.parametrize("name", ["bridge", *PIPELINE, *SERVERS])
def test_an_orderly_end(system: System, name: str) -> None:
    system.whole()
    settle(system, 120, clean_up=False)
    again = len(system.log_lines("bridge", "not finished within its lease"))
    part = system.parts[name]
    with Flow(system, interval=0.05, size=20) as flow:
        took = part.end(STOP_SECONDS)
        part.come_back()
        if name in SERVERS:  # how long a server takes to start is its own affair
            part.wait_until_healthy(120)
        started = time.monotonic()
        _, embedded = flow.first_after(started, 120)
        flow.all_before(started, 120)
        flow.finish()
        slowest = flow.slowest()
        report.add(TITLE, COLUMNS, [name, took, embedded - started, slowest])
        print(f"{name}: ended after {took:.1f} s, flow after {embedded - started:.1f} s, slowest {slowest:.1f} s")
        assert flow.dead_or_failed() == 0
        assert flow.second_attempts() == [], f"jobs (id, attempts) that were done again after {name} had ended"
    if name == "bridge":
        assert system.log_lines(name, "stopped, ")[-1].split("stopped, ")[1].startswith("0 hand-overs left")
    if name not in SERVERS:
        resent = system.log_lines("bridge", "not finished within its lease")[again:]
        assert not resent, f"tasks were waited for until their lease was over: {resent}"
