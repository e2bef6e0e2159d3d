"""The Celery application: `celery -A tasks.app worker -Q persist`. All its settings are in celeryconfig.py."""

import os
import sys
from typing import Any

import click
from billiard import pool
from celery.signals import celeryd_init, worker_process_init

import settings
import streams
from tasks import celery_logs, garbage, transport
from telemetry import tracing

# `celery -A tasks.app` has the current folder in its path only until this module is found. What is loaded later, such
# as beat's scheduler, lies there too.
sys.path.append(str(settings.ROOT))
transport.install()
# How long an ending pool process waits for the main process to read its last result (30 s by default). A main process
# that is ending never reads it. The task was done, and may be done again.
pool.GUARANTEE_MESSAGE_CONSUMPTION_RETRY_LIMIT = 10  # times 0.1 s

app = celery_logs.Application("text-pipeline")
app.config_from_object("celeryconfig")
app.steps["worker"].add("tasks.installation:Installation")
app.steps["worker"].add("tasks.pulse:Pulse")
app.steps["worker"].add("tasks.watchdog:Watchdog")
app.steps["worker"].add("tasks.hang_up:HangUp")
app.steps["worker"].add("tasks.one_process:OneProcess")
app.steps["worker"].add("tasks.ending:Ending")
# `celery -A tasks.app` imports this before it reads the options of its worker or beat.
if (command := click.get_current_context(silent=True)) is not None:
    try:
        celery_logs.go_by_settings(command)
    except settings.InvalidSetting as error:  # Celery would tell it in a traceback
        print(f"celery: {error}", file=sys.stderr)
        sys.exit(streams.WRONG_USAGE)


@worker_process_init.connect
def trace_tasks(**_: object) -> None:
    tracing.watch_worker(settings.load())
    garbage.look_seldom()


@celeryd_init.connect
def name_by_queue(instance: Any = None, options: dict[str, Any] | None = None, **_: object) -> None:
    """A worker that was started without a name is called after its queue: embed@host.1234 instead of celery@host."""
    queues = (options or {}).get("queues") or ""
    queue = queues if isinstance(queues, str) else ",".join(queues)
    name, _at, host = instance.hostname.partition("@")
    if name == "celery" and queue and "," not in queue:
        instance.hostname = f"{queue}@{host}.{os.getpid()}"
    celery_logs.begin(instance)
    try:
        tracing.is_on(settings.load())
    except settings.InvalidSetting as error:
        print(f"{instance.hostname}: {error}", file=sys.stderr)
        sys.exit(streams.WRONG_USAGE)
