"""Every queue has a worker wherever the system runs, every worker a queue, every task a route, each route a queue."""

import re
import shlex
from typing import Any

import pytest
import yaml
from celery.exceptions import QueueNotFound

import celeryconfig
import task_names
from settings import ROOT, Settings
from stack import supervisor
from stack.pipeline import pipeline
from tasks import MODULES
from tasks.app import app

QUEUES = {queue.name for queue in celeryconfig.task_queues}


def queues_of(command: list[str]) -> set[str]:
    """The queues that a worker's command line takes its tasks from; none for any other command."""
    if "tasks.celery" not in command or "worker" not in command:
        return set()
    assert "-Q" in command, f"{command} takes from every queue"
    return set(command[command.index("-Q") + 1].split(","))


def supervised() -> dict[str, list[str]]:
    """The command of each program that the supervisor's configuration names."""
    parts = pipeline(Settings())
    text = supervisor.configuration(Settings(), parts)
    named = re.findall(r"^\[program:(.+)\]$", text, re.MULTILINE)
    assert named == [part.name for part in parts]
    return {part.name: part.command for part in parts}


def composed() -> dict[str, list[str]]:
    services: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    return {name: shlex.split(service.get("command", "")) for name, service in services.items()}


@pytest.mark.parametrize("commands", [supervised, composed])
def test_every_queue_has_a_worker_and_every_worker_a_queue(commands: Any) -> None:
    served = [queues for command in commands().values() if (queues := queues_of(command))]
    assert set().union(*served) == QUEUES
    assert sum(map(len, served)) == len(QUEUES), "two workers for one queue, or a worker for two"


@pytest.mark.parametrize("commands", [supervised, composed])
def test_a_worker_is_named_after_its_queue(commands: Any) -> None:
    for name, command in commands().items():
        for queue in queues_of(command):
            assert name == f"{queue}-worker"
            assert command[command.index("-n") + 1] == f"{queue}@%h"


def test_the_two_tasks_have_queues_of_their_own() -> None:
    assert celeryconfig.task_routes["tasks.persist_text"] == {"queue": "persist"}
    assert celeryconfig.task_routes["tasks.embed_text"] == {"queue": "embed"}
    assert {"persist", "embed"} == QUEUES


def test_every_task_has_a_route_and_every_route_a_task_and_a_queue() -> None:
    app.loader.import_default_modules()
    tasks = {name for name in app.tasks if not name.startswith("celery.")}
    assert set(celeryconfig.task_routes) == tasks
    assert set(task_names.ALL) == tasks == {f"tasks.{name}" for name in MODULES}
    assert {route["queue"] for route in celeryconfig.task_routes.values()} <= QUEUES


def test_what_beat_sends_are_tasks() -> None:
    assert {entry["task"] for entry in celeryconfig.beat_schedule.values()} <= set(celeryconfig.task_routes)


def test_a_task_without_a_route_goes_to_a_queue_that_has_a_worker() -> None:
    assert app.amqp.router.route({}, "tasks.without_a_route")["queue"].name in QUEUES


def test_a_queue_that_no_worker_takes_from_is_not_made_by_accident() -> None:
    with pytest.raises(QueueNotFound, match="embd"):
        app.amqp.router.route({"queue": "embd"}, "tasks.embed_text")
