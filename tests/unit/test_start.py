"""What a worker and beat load before they begin: only what they work with, or each start takes longer, that after a
crash too, and each worker more memory.
"""

import os
import subprocess
import sys

import pytest

from settings import ROOT

# What makes up most of a start: Kafka's client, the database's, and what is plugged into Celery's own command.
LARGE = {"kafka", "sqlalchemy", "psycopg2", "numpy", "flower", "tornado", "prompt_toolkit", "onnxruntime", "flask"}

WORKER = "app.loader.import_default_modules()"
BEAT = """
app.Beat(quiet=True, loglevel="INFO").init_loader()
assert app.conf.beat_scheduler == "tasks.clock:Clock"
"""


@pytest.mark.parametrize(("begins", "expected"), [(WORKER, {"sqlalchemy", "psycopg2", "numpy"}), (BEAT, set())])
def test_what_is_loaded_before_it_begins(begins: str, expected: set[str]) -> None:
    code = f"import sys, tasks.celery\nfrom tasks.app import app\n{begins}\nprint(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) & LARGE == expected


def test_it_runs_no_other_application() -> None:
    command = [sys.executable, "-m", "tasks.celery", "-A", "nothing.here", "worker"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "'nothing.here' is not 'tasks.app'" in ran.stderr


@pytest.mark.parametrize("module", ["tasks.celery", "celery"])
@pytest.mark.parametrize("command", ["worker", "beat"])
def test_a_setting_that_cannot_be_is_told_in_a_line(module: str, command: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", module, "-A", "tasks.app", command],
        cwd=ROOT,
        env={**os.environ, "KAFKA_PORT": "abc"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 2
    assert ran.stderr == "celery: KAFKA_PORT='abc': KAFKA_PORT takes a whole number\n"


# Says at which level it would log, instead of beginning.
LEVEL = """
import sys
from celery.app.base import Celery
from celery.bin.celery import main as by_hand
from tasks.celery_logs import Application

def tell(*, loglevel, **_):
    sys.exit(f"level {loglevel}")

Celery.Worker = Application.Beat = property(lambda app: tell)
"""
BY_HAND = f"{LEVEL}\nby_hand()"
OUR_OWN = f"{LEVEL}\nfrom tasks.celery import celery\ncelery()"


@pytest.mark.parametrize("begins", [BY_HAND, OUR_OWN])
@pytest.mark.parametrize("command", ["worker", "beat"])
@pytest.mark.parametrize(
    ("given", "options", "level"), [("", [], 20), ("DEBUG", [], 10), ("error", [], 40), ("DEBUG", ["-l", "ERROR"], 40)]
)
def test_it_logs_at_the_level_of_the_settings_unless_told_otherwise(
    begins: str, command: str, given: str, options: list[str], level: int
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", begins, "-A", "tasks.app", command, *options],
        cwd=ROOT,
        env={**os.environ, "LOG_LEVEL": given},
        capture_output=True,
        text=True,
    )
    assert ran.stderr.splitlines()[-1] == f"level {level}"


# As a worker does: it is set up, prints its banner and forks.
FORKS = """
import sys
from types import SimpleNamespace
from billiard import Process
from tasks.app import name_by_queue

name_by_queue(SimpleNamespace(hostname="celery@here"))
print("banner", file=sys.__stdout__, flush=True)
child = Process(target=print, args=["child"])
child.start()
child.join()
sys.exit(child.exitcode)
"""

TICKS = """
from celery.apps import beat
from tasks.app import app

beat.Beat.start_scheduler = lambda self: None
app.Beat(loglevel="INFO").run()
"""


@pytest.mark.parametrize(
    ("begins", "where"),
    [(FORKS, ">&- 2>&-"), (FORKS, "<&- >&-"), (FORKS, ">/dev/full 2>&1"), (TICKS, ">/dev/full 2>&1")],
    ids=["nothing", "errors", "a full disk", "beat on a full disk"],
)
def test_it_starts_where_nothing_can_be_written(begins: str, where: str) -> None:
    command = ["bash", "-c", f'"$@" {where}', "bash", sys.executable, "-c", begins]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
