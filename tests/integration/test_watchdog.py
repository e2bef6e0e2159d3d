"""A real worker that stalls as Celery's do: connected, healthy, and fetching nothing any more."""

import os
import subprocess
import sys
from dataclasses import fields

import redis
from sqlalchemy import Engine

from settings import ROOT, Settings
from tests.parts import eventually

STALLING = """
import sys
from celery.__main__ import main
from kombu.transport.redis import Channel
import redis
import tasks.watchdog

tasks.watchdog.LOOK_SECONDS, tasks.watchdog.STALLED_SECONDS = 0.2, 3.0
flag, fetch = redis.Redis.from_url(sys.argv[1]), Channel._brpop_start
Channel._brpop_start = lambda self, timeout=1: None if flag.exists("stall") else fetch(self, timeout)
sys.argv = ["celery", "-A", "tasks.app", "worker", "-Q", "persist", "-l", "INFO"]
main()
"""


def test_a_worker_that_fetches_no_more_ends_itself(settings: Settings, database: Engine, broker: redis.Redis) -> None:
    values = {field.name.upper(): str(getattr(settings, field.name)) for field in fields(settings)}
    environment = {**os.environ, **{name: value for name, value in values.items() if value}}
    command = [sys.executable, "-c", STALLING, settings.redis_address]
    worker = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        send_sweep(settings, environment)
        eventually(lambda: broker.llen("persist") == 0, timeout=40)
        broker.set("stall", "1")
        for _ in range(3):  # one more may have been under way
            send_sweep(settings, environment)
        _, said = worker.communicate(timeout=60)
    finally:
        worker.kill()
        worker.wait()
    assert "stalled: " in said
    assert broker.llen("persist") > 0, "what it did not take is still there"


def send_sweep(settings: Settings, environment: dict[str, str]) -> None:
    code = "from tasks.app import app; app.send_task('tasks.sweep')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, timeout=60)
