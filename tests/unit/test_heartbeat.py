"""The heartbeat: a loop that goes round keeps it fresh, one that hangs does not, and the check says which it is."""

import ast
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency import prefork, solo
from celery.worker import state
from kombu.asynchronous import Hub
from kombu.exceptions import OperationalError

import settings as configuration
from settings import ROOT, Settings
from tasks import consumer, pulse
from tasks.app import app
from tasks.clock import QUEUE_LIMIT, Clock
from telemetry import heartbeat
from tests.parts import eventually


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "heartbeat"
    monkeypatch.setattr(configuration, "load", lambda: Settings(heartbeat_file=str(file)))
    monkeypatch.setattr(heartbeat, "_next", float("-inf"))
    return file


def check(**variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "HEARTBEAT_FILE"}
    command = [sys.executable, "-m", "telemetry.heartbeat"]
    return subprocess.run(command, cwd=ROOT, env={**kept, **variables}, capture_output=True, text=True, timeout=60)


def test_a_fresh_beat_is_health(file: Path) -> None:
    heartbeat.beat()
    answer = check(HEARTBEAT_FILE=str(file))
    assert (answer.returncode, answer.stdout) == (0, "ok\n")


def test_an_old_beat_is_none(file: Path) -> None:
    heartbeat.write(file, time.monotonic() - heartbeat.STALE_SECONDS - 1)
    answer = check(HEARTBEAT_FILE=str(file))
    assert answer.returncode == 1
    assert answer.stdout.startswith("no heartbeat for 6")


def test_before_the_first_beat_there_is_no_health(file: Path) -> None:
    assert heartbeat.problem(file) == "no heartbeat yet"


def test_a_beat_of_before_the_machine_was_started_is_none(file: Path) -> None:
    heartbeat.write(file, time.monotonic() + 1_000)
    assert heartbeat.problem(file) == "no heartbeat since the machine was started"


def test_the_check_wants_to_know_where(file: Path) -> None:
    answer = check()
    assert answer.returncode == 1
    assert "HEARTBEAT_FILE" in answer.stdout


def test_it_is_written_once_a_second_however_often_the_loop_goes_round(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[float] = []
    monkeypatch.setattr(heartbeat, "write", lambda _file, now: written.append(now))
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    for _ in range(50):
        heartbeat.beat()
        now += 0.1
    assert len(written) == 5


def test_a_full_disk_does_not_end_the_loop(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.with_name("heartbeat.new").mkdir()  # no file can be written there
    heartbeat.beat()
    assert "no heartbeat written" in caplog.text


def test_without_the_setting_nothing_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "load", Settings)
    monkeypatch.setattr(heartbeat, "_next", float("-inf"))
    monkeypatch.setattr(heartbeat, "write", lambda *_: pytest.fail("it wrote"))
    heartbeat.beat()


def test_a_task_that_hangs_stops_the_beats_of_its_worker(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging = SimpleNamespace(time_start=time.time() - pulse.HANGING_SECONDS - 1)
    monkeypatch.setattr(state, "active_requests", [hanging])
    pulse.pulse()
    assert not file.exists()


def test_tasks_that_work_or_wait_do_not(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [SimpleNamespace(time_start=time.time() - 600), SimpleNamespace(time_start=None)]
    monkeypatch.setattr(state, "active_requests", tasks)
    pulse.pulse()
    assert file.exists()


def test_a_worker_that_works_itself_beats_while_it_has_a_task_and_only_then(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its event loop stands still meanwhile; one that hangs without a task must not be hidden."""
    in_hand: list[Any] = []
    monkeypatch.setattr(state, "active_requests", in_hand)
    monkeypatch.setattr(heartbeat, "BEAT_SECONDS", 0.01)
    worker = SimpleNamespace(pool_cls=solo.TaskPool, timer=SimpleNamespace(call_repeatedly=lambda *_, **__: None))
    step = pulse.Pulse(SimpleNamespace())
    step.start(worker)
    try:
        time.sleep(0.1)  # ten beats that must not be
        assert not file.exists()
        in_hand.append(SimpleNamespace(time_start=time.time()))
        eventually(file.exists, timeout=10)
    finally:
        step.stop(worker)


def test_a_worker_beats_while_it_seeks_its_broker(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens at port 1; the second look between two attempts ends the seeking."""
    connection = app.connection_for_read("redis://127.0.0.1:1/0")
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise SystemExit

    seeking = consumer.Consumer.__new__(consumer.Consumer)
    seeking.app, seeking.first_connection_attempt, seeking.broker_connection_retry_attempt = app, True, 0
    monkeypatch.setattr("celery.worker.consumer.consumer.maybe_shutdown", look)
    with pytest.raises((SystemExit, OperationalError)):
        seeking.ensure_connected(connection)
    assert looks == 2
    assert heartbeat.problem(file) is None
    assert "ensure_connection" not in vars(connection)


def test_beat_that_starts_without_its_broker_beats_all_the_same(tmp_path: Path) -> None:
    """Nobody listens at port 1."""
    file = tmp_path / "heartbeat"
    variables = {**os.environ, "HEARTBEAT_FILE": str(file), "REDIS_URL": "redis://127.0.0.1:1/0"}
    command = [sys.executable, "-m", "tasks.celery", "-A", "tasks.app", "beat", "--pidfile="]
    beat = subprocess.Popen(command, cwd=ROOT, env=variables, stderr=subprocess.PIPE, text=True)
    try:
        eventually(file.exists, timeout=30)
        for _ in range(3):
            before = file.read_text()
            eventually(lambda before=before: file.read_text() != before, timeout=20)  # type: ignore[misc]
    finally:
        beat.terminate()
        _, said = beat.communicate(timeout=20)
    assert said.count("no task sent: broker away") == 1


@pytest.fixture
def telling() -> consumer.Consumer:
    """A worker's consumer with a dispatcher of events as Celery makes it, whose channel is in memory."""
    made = consumer.Consumer.__new__(consumer.Consumer)
    made.hub = Hub()
    made.pool = object.__new__(solo.TaskPool)
    made.connection = app.connection_for_write("memory://")
    made.channel_errors = made.connection.channel_errors
    made.event_dispatcher = app.events.Dispatcher(
        made.connection, buffer_group=["task"], on_send_buffered=made.on_send_event_buffered
    )
    made.told = []
    made.event_dispatcher.producer.publish = lambda events, **_: made.told.append(events)
    return made


def test_events_are_told_together_and_on_their_own(telling: consumer.Consumer) -> None:
    for number in range(3):
        telling.event_dispatcher.send("task-received", uuid=str(number))
    assert telling.told == []
    (waiting,) = [entry for _, _, entry in telling.hub.timer.queue]
    waiting()
    assert [event["uuid"] for event in telling.told[0]] == ["0", "1", "2"]
    assert len(telling.told) == 1


def test_events_outlive_a_connection(telling: consumer.Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError

    telling.event_dispatcher.producer.publish = broken
    telling.event_dispatcher.send("task-received", uuid="kept")
    monkeypatch.setattr("celery.worker.consumer.Consumer.on_connection_error_after_connected", lambda *_: None)
    telling.on_connection_error_after_connected(ConnectionError())
    after = app.events.Dispatcher(telling.connection)
    after.producer.publish = lambda events, **_: telling.told.append(events)
    after.extend_buffer(telling.event_dispatcher)
    after.flush()
    assert [event["uuid"] for event in telling.told[0]] == ["kept"]


def test_a_silent_broker_is_tried_once_before_a_reconnect_and_at_the_end(
    telling: consumer.Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[object] = []

    def silent(events: object, **_: object) -> None:
        tried.append(events)
        raise TimeoutError

    telling.event_dispatcher.producer.publish = silent
    monkeypatch.setattr("celery.worker.consumer.Consumer.on_connection_error_after_connected", lambda *_: None)
    monkeypatch.setattr("celery.worker.consumer.Consumer.shutdown", lambda *_: None)
    for number in range(5):
        telling.event_dispatcher.send("worker-heartbeat", freq=number)  # Celery keeps them
    tried.clear()
    for ends in (partial(telling.on_connection_error_after_connected, TimeoutError()), telling.shutdown):
        telling.event_dispatcher.send("task-received", uuid="last")
        ends()
        assert len(tried) == 1, "one time-out, not one for each that was kept"
        tried.clear()


@pytest.mark.parametrize(
    ("pool", "in_hand"), [(solo.TaskPool, False), (prefork.TaskPool, True)], ids=["itself", "children"]
)
def test_a_task_that_a_lost_connection_has_ended_is_not_in_hand(
    telling: consumer.Consumer, monkeypatch: pytest.MonkeyPatch, pool: type, in_hand: bool
) -> None:
    """It was storing its result. Its batch would be held, too, and each later loss would tell that it cannot be
    cancelled."""
    seen: list[bool] = []
    request = type("Request", (), {"id": "ended"})()  # Celery refers to it weakly
    telling.pool = object.__new__(pool)
    monkeypatch.setattr(
        "celery.worker.consumer.Consumer.on_connection_error_after_connected",
        lambda *_: seen.append(request in state.active_requests),
    )
    state.task_reserved(request)
    state.active_requests.add(request)
    try:
        telling.on_connection_error_after_connected(TimeoutError())
        held = [request in state.active_requests, request in state.reserved_requests, "ended" in state.requests]
        assert [*seen, *held] == [in_hand] * 4
    finally:
        state.task_ready(request)


def test_beat_beats_with_every_round_of_its_schedule(file: Path) -> None:
    clock = Clock(app=app, lazy=True)
    clock.tick(event_t=lambda *_: None, min=min, heappop=lambda heap: None, heappush=lambda *_: None)
    assert heartbeat.problem(file) is None


def test_beat_names_both_reasons_why_nobody_empties_its_queue(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tasks.clock.length_at_priority", lambda *_: QUEUE_LIMIT)
    Clock(app=app).apply_async(SimpleNamespace(), advance=False)
    (said,) = caplog.messages
    assert said.startswith("no task sent: the queue persist is long")
    assert "worker" in said
    assert "database" in said


def test_workers_are_set_up_for_it() -> None:
    assert "tasks.pulse:Pulse" in app.steps["worker"]
    assert app.conf.worker_consumer == "tasks.consumer:Consumer"


def test_the_loop_of_the_bridge_beats() -> None:
    """In the very loop that polls, since anything beside it would beat on when that one hangs."""
    tree = ast.parse((ROOT / "bridge/consumer.py").read_text())
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.While) and calls(node, "take_in")]
    assert len(loops) == 1
    assert calls(loops[0], "beat")


def calls(node: ast.AST, name: str) -> bool:
    called: list[Any] = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return any(isinstance(each, ast.Attribute) and each.attr == name for each in called)
