"""What a button began: a task, and what has come of it so far."""

import logging
import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from celery import Celery, states

from api.problems import Unavailable
from db.session import first_line
from settings import Settings
from tasks.broker import BROKER_ERRORS

log = logging.getLogger(__name__)

WAITING = "PENDING"  # of a task that nobody has begun; also of one whose result has expired, and of any unknown id
PATIENCE_SECONDS = 60
UNKNOWN = "No worker has said anything for a minute. It is still queued, or it was done more than ten minutes ago."


@dataclass(frozen=True)
class Action:
    """`said` is for people. Ask again until the action is `done`, but stop after a minute without news; `since` is when
    the last news came."""

    said: str
    done: bool
    since: int = 0
    failed: bool = False
    problems: tuple[str, ...] = ()

    @property
    def given_up(self) -> bool:
        return not self.done and time.time() - self.since > PATIENCE_SECONDS


def connect(settings: Settings) -> Celery:
    """A sender of tasks to the Redis of these settings, which in a test differ from the process's own."""
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


def look(app: Celery, action: str, since: int | None = None) -> Action:
    """What has come of a task, of which there was no news after `since`. Never raises because of Redis: the next look
    may see more."""
    now = int(time.time())
    try:
        found = app.backend.get_task_meta(action)
    except BROKER_ERRORS as error:
        return unknown(f"Redis does not answer: {first_line(error)}")
    state, result = found["status"], found.get("result")
    if state == WAITING:
        waiting = Action("Waiting for a persist worker…", done=False, since=now if since is None else since)
        return replace(waiting, said=UNKNOWN) if waiting.given_up else waiting
    try:
        if state == states.SUCCESS:
            return Action(sentence(result), done=True, failed=bool(result.get("failed")), problems=problems(result))
        if state == "PROGRESS":
            return Action(f"{sentence(result)} Going on…", done=False, since=now, problems=problems(result))
    except (LookupError, TypeError, ValueError, AttributeError):
        return Action("Its result is none that a button here makes.", done=True, failed=True)
    if state in (states.FAILURE, states.REVOKED):  # revoked: by `celery control revoke`, or a button of Flower
        return Action(f"It did not work: {result}", done=True, failed=True)
    return Action(f"A part is away, trying again: {result}", done=False, since=now)


def unknown(why: str) -> Action:
    """What cannot be told now; the next look may."""
    return Action(why, done=False, since=int(time.time()))


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
