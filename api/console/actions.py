"""What a button began: a task, and what has come of it so far."""

import logging
import uuid
from dataclasses import dataclass
from typing import Any

from celery import Celery, states

from api.problems import Unavailable
from db.session import first_line
from settings import Settings
from tasks.broker import BROKER_ERRORS

log = logging.getLogger(__name__)

WAITING = "PENDING"


@dataclass(frozen=True)
class Action:
    """`said` is for people; while it is not `done` it is worth asking again."""

    said: str
    done: bool
    failed: bool = False
    problems: tuple[str, ...] = ()


def connect(settings: Settings) -> Celery:
    """A sender of tasks to the Redis of these settings, which in a test are not those of the process."""
    app = Celery("console", set_as_current=False)
    app.config_from_object("celeryconfig")
    address = settings.redis_address
    app.conf.update(broker_url=address, result_backend=f"tasks.results:PolledRedisBackend+{address}")
    return app


def begin(app: Celery, name: str, choice: dict[str, Any]) -> str:
    """Sends the task; returns its id. Raises Unavailable where Redis is away."""
    action = str(uuid.uuid4())
    try:
        app.send_task(name, kwargs=choice, task_id=action, argsrepr="()", kwargsrepr=summary(choice))
    except BROKER_ERRORS as error:
        log.warning("%s not sent: %s", name, first_line(error))
        raise Unavailable("Redis does not answer, so no worker was told; try again in a moment") from None
    return action


def summary(choice: dict[str, Any]) -> str:
    """What Flower shows."""
    if "keys" in choice:
        return ", ".join(":".join(map(str, key)) for key in choice["keys"])
    return "1 message" if "ids" in choice else f"all: {choice.get('why') or 'any'}"


def look(app: Celery, action: str) -> Action:
    """What has come of a task. Never raises for Redis: the next look may see more."""
    try:
        found = app.backend.get_task_meta(action)
    except BROKER_ERRORS as error:
        return Action(f"Redis does not answer: {first_line(error)}", done=False)
    state, result = found["status"], found.get("result")
    if state == WAITING:
        return Action("Waiting for a persist worker…", done=False)
    if state == states.SUCCESS:
        return Action(sentence(result), done=True, failed=bool(result.get("failed")), problems=problems(result))
    if state == "PROGRESS":
        return Action(f"{sentence(result)} Going on…", done=False, problems=problems(result))
    if state == states.FAILURE:
        return Action(f"It did not work: {result}", done=True, failed=True)
    return Action(f"A part is away, trying again: {result}", done=False)


def problems(result: dict[str, Any]) -> tuple[str, ...]:
    return tuple(map(str, result.get("problems", ())))


def sentence(result: dict[str, Any]) -> str:
    if "sent" in result:
        failed = f" {records(result['failed'])} could not be sent." if result["failed"] else ""
        return f"{records(result['sent'])} sent again; what can be stored now leaves the list.{failed}"
    if "dropped" in result:
        return f"{result['dropped']:,} {'dead letter' if result['dropped'] == 1 else 'dead letters'} dropped."
    queued = result["queued"]
    return f"{queued:,} {'message is' if queued == 1 else 'messages are'} queued to be embedded again."


def records(number: int) -> str:
    return f"{number:,} {'record' if number == 1 else 'records'}"
