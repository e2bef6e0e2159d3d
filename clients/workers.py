"""Asking the workers to change something, and waiting for what comes of it. The tasks are those of the console's
buttons (tasks/actions.py); a client knows their names only (task_names.py), and cannot write itself."""

import time
import uuid
from collections.abc import Mapping
from typing import Any

from celery import states

from clients.terminal import CommandFailed, Unreachable, say
from settings import Settings
from tasks.app import app
from tasks.broker import BROKER_ERRORS

LOOK_SECONDS = 0.05
SILENT_SECONDS = 30.0  # without a word of a worker


def ask(settings: Settings, name: str, arguments: Mapping[str, Any], about: str) -> dict[str, Any]:
    """Sends a task and returns its result. `about` is what Flower shows of its arguments.

    Raises Unreachable if Redis is away or no worker says anything, and CommandFailed with the task's own words. Ctrl-C
    takes nothing back, and the user is told so.
    """
    task = str(uuid.uuid4())
    try:
        app.send_task(name, kwargs=dict(arguments), task_id=task, argsrepr="()", kwargsrepr=about)
        try:
            return wait(task)
        except KeyboardInterrupt:
            say("kafka_cli.py: the request is in its queue, and will be done all the same")
            raise
    except BROKER_ERRORS as error:
        where = settings.redis_address.rpartition("@")[2]
        raise Unreachable(f"Redis at {where} does not answer: {error}; ./status.sh shows what runs") from error
    finally:
        app.close()


def wait(task: str) -> dict[str, Any]:
    heard, said = time.monotonic(), None
    while time.monotonic() - heard < SILENT_SECONDS:
        found = app.backend.get_task_meta(task)
        state, result = found["status"], found.get("result")
        if state == states.SUCCESS:
            app.backend.delete(app.backend.get_key_for_task(task))
            return dict(result)
        if state == states.FAILURE:
            raise CommandFailed(f"it did not work: {result}")
        if (state, str(result)) != said:
            heard, said = time.monotonic(), (state, str(result))
        time.sleep(LOOK_SECONDS)
    raise Unreachable(
        f"no persist worker has answered for {SILENT_SECONDS:.0f} s: the request waits in its queue, and is done as "
        "soon as one comes; ./status.sh shows what runs"
    )
