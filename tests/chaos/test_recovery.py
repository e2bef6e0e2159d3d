"""How long recovery takes: parts that are killed, and servers that stay away for a minute. The bounds are promises."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from tests.chaos import report
from tests.chaos.flow import Flow
from tests.chaos.plan import GROUP
from tests.chaos.run import settle
from tests.chaos.system import System, running_system

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]

TITLE = "Recovery"
COLUMNS = ("what happens", "measured (s)", "promised (s)")
TIMES = 3
BRIDGE_SECONDS, WORKER_SECONDS, RETURN_SECONDS = 5.0, 30.0, 5.0
AT_ONCE_SECONDS = 1.0
# How long a POST may take that is the first to find Kafka gone: what it waits for an acknowledgement.
FIRST_POST_SECONDS = 8.0


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system("recovery", keep_logs=True) as started:
        yield started


@pytest.fixture
def flow(system: System) -> Iterator[Flow]:
    system.whole()
    settle(system, 120, clean_up=False)
    with Flow(system) as running:
        yield running


def measured(what: str, seconds: list[float], bound: float) -> None:
    """Notes what was measured, and fails where it is beyond what is promised."""
    said = ", ".join(f"{each:.1f}" for each in seconds)
    print(f"{what}: {said} s, promised: {bound:g} s", flush=True)
    report.add(TITLE, COLUMNS, [what, said, f"{bound:g}"])
    assert max(seconds) <= bound, f"{what}: {said} s, but {bound:g} s are promised"


def test_a_killed_bridge_goes_on(system: System, flow: Flow) -> None:
    took = []
    for _ in range(TIMES):
        killed = time.monotonic()
        system.parts["bridge"].crash(GROUP)
        stored, _ = flow.first_after(killed, 120)
        took.append(stored - killed)
        time.sleep(11)  # a part that lives for less is started again with a pause
    flow.finish()
    measured("bridge killed: the next record is stored", took, BRIDGE_SECONDS)


@pytest.mark.parametrize("name", ["persist-worker", "embed-worker"])
def test_the_tasks_of_a_killed_worker_are_done(system: System, name: str) -> None:
    system.whole()
    settle(system, 120, clean_up=False)
    took = []
    with Flow(system, interval=0.05, size=100) as flow:  # always a task in its hand
        for _ in range(TIMES):
            killed = time.monotonic()
            system.parts[name].crash(GROUP)
            took.append(flow.all_before(killed, 180) - killed)
            time.sleep(max(0.0, killed + 11 - time.monotonic()))
        flow.finish()
        assert flow.dead_or_failed() == 0
    measured(f"{name} killed: its tasks are done", took, WORKER_SECONDS)


@contextlib.contextmanager
def away(system: System, name: str, seconds: float) -> Iterator[None]:
    """Kills a server, keeps it away while the block runs and at least so long, and starts it again."""
    until = time.monotonic() + seconds
    system.parts[name].stay_away()
    yield
    time.sleep(max(0.0, until - time.monotonic()))
    system.parts[name].come_back()
    system.parts[name].wait_until_healthy(120)


@pytest.mark.parametrize("name", ["postgres", "valkey", "kafka"])
def test_flow_is_back_after_a_server_was_away(
    system: System, flow: Flow, name: str, pytestconfig: pytest.Config
) -> None:
    seconds = pytestconfig.getoption("--away")
    posts = Posts(system)
    with away(system, name, seconds), posts:
        time.sleep(seconds)
    back = time.monotonic()
    stored, embedded = flow.first_after(back, 120)
    flow.finish()
    left = settle(system, 60, clean_up=False)
    caught_up = time.monotonic() - back
    assert not left
    assert flow.dead_or_failed() == 0, "an outage must not make a dead letter or a failed embedding"
    assert flow.second_attempts() == [], f"{name} was away, and jobs (id, attempts) were counted as tried again"
    report.add(TITLE, COLUMNS, [f"{name} away for {seconds:g} s: all that came meanwhile is embedded", caught_up, ""])
    if name == "kafka":
        assert {status for status, _ in posts.answers} == {503}, posts.answers
        assert all(posts.retry_after), "a 503 without Retry-After"
        times = [took for _, took in posts.answers]
        measured("Kafka away: the first POST is answered by 503", times[:1], FIRST_POST_SECONDS)
        measured(f"Kafka away: the slowest of {len(times) - 1} POSTs after that", [max(times[1:])], AT_ONCE_SECONDS)
    measured(f"{name} away for {seconds:g} s: the next record is stored", [stored - back], RETURN_SECONDS)
    measured(f"{name} away for {seconds:g} s: and embedded", [embedded - back], RETURN_SECONDS)


class Posts:
    """POSTs one after the other, from `with` to its end: (status, seconds) of each answer."""

    def __init__(self, system: System) -> None:
        self.url = f"http://127.0.0.1:{system.settings.text_api_port}/messages"
        self.answers: list[tuple[int, float]] = []
        self.retry_after: list[bool] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="posts", daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *_: object) -> None:
        self.ending.set()
        self.thread.join(60)

    def _run(self) -> None:
        with requests.Session() as http:
            http.trust_env = False
            while not self.ending.wait(0.2):
                began = time.monotonic()
                answer = http.post(self.url, json={"message": "while something is away"}, timeout=60)
                self.answers.append((answer.status_code, time.monotonic() - began))
                self.retry_after.append("Retry-After" in answer.headers)
