"""`kafka_cli.py drain`: holds the intake and waits until nothing is under way, so that parts may be stopped.

Under way is what the bridges have taken and not committed, tasks in Redis, and texts that wait for their vector. The
bridges say themselves when they rest (bridge/steering.py); if none runs, nothing of theirs is under way.
"""

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

import redis
from kafka.admin import KafkaAdminClient

from clients import connect, database, json_form, steering
from clients.progress import counting_down
from clients.terminal import CommandFailed, say
from db import queries
from redis_keys import PAUSED, rest_field, steering_key, task_lists
from settings import Settings

STAYS_PAUSED = "the intake stays paused: `python kafka_cli.py resume` lets it go on"

LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Left:
    """What is still under way: partitions whose bridge does not rest, persist tasks, texts without a vector."""

    partitions: int
    tasks: int
    texts: int
    failed: int

    @property
    def nothing(self) -> bool:
        return not (self.partitions or self.tasks or self.texts)

    def __str__(self) -> str:
        return (
            f"{self.partitions} partitions with records in hand, {self.tasks} persist tasks, "
            f"{self.texts:,} texts to embed"
        )


class Resumed(CommandFailed):
    """Somebody else has resumed the intake, or has paused it anew."""


def drain(given: argparse.Namespace, settings: Settings) -> int:
    name = steering.pause(settings, paused=True)
    with told_that_it_stays_paused():
        return drain_paused(given, settings, name)


@contextmanager
def told_that_it_stays_paused() -> Iterator[None]:
    """Says that the intake stays paused, however the command ends: also by Ctrl-C, SIGTERM or a part that is away."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    stays = True
    try:
        yield
    except Resumed:
        stays = False
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
        if stays:
            say(STAYS_PAUSED)


def drain_paused(given: argparse.Namespace, settings: Settings, name: str) -> int:
    began = time.monotonic()
    with connect.admin(settings) as admin:
        left = wait(settings, admin, name, given.timeout)
    took = round(time.monotonic() - began, 1)
    if given.json:
        found = {"drained": left.nothing, "seconds": took, "partitions_in_hand": left.partitions}
        print(json_form.dump({**found, "tasks": left.tasks, "pending": left.texts, "failed": left.failed}))
    if not left.nothing:
        raise CommandFailed(f"not drained within {given.timeout:g} s: {left}")
    if not given.json:
        print(f"drained in {took:g} s: all that was read is stored, embedded and committed")
        if left.failed:
            say(f"{left.failed:,} messages are marked as failed: `python -m db retry-failed` embeds them once more")
    return 0


def wait(settings: Settings, admin: KafkaAdminClient, name: str, timeout: float | None) -> Left:
    """Waits, with a bar on a terminal, until nothing is left or the time is over; returns what is left.

    Two looks in a row have to find nothing: a task that is just between a queue and a worker is in neither.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    nothing_before = False
    with database.connect(settings) as connection, closing(steering.connect(settings)) as client:
        numbers = [part.partition for part in connect.partitions(admin, settings.kafka_topic)]
        with counting_down("draining") as show:
            while True:
                counted = queries.under_way(connection)
                partitions, tasks = in_hand(settings, admin, client, numbers, name)
                left = Left(partitions, tasks, counted["pending"], counted["failed"])
                show(left.partitions + left.tasks + left.texts, str(left))
                if left.nothing and nothing_before:
                    return left
                nothing_before = left.nothing
                if not left.nothing and deadline is not None and time.monotonic() >= deadline:
                    return left
                time.sleep(LOOK_SECONDS)


def in_hand(
    settings: Settings, admin: KafkaAdminClient, client: redis.Redis, numbers: list[int], name: str
) -> tuple[int, int]:
    """Partitions of which a running bridge has not said that it rests, and persist tasks that wait.

    Raises Resumed if somebody has resumed the intake, and Unreachable if Redis is away.
    """
    try:
        client.hsetnx(steering_key(settings.kafka_group_id), PAUSED, name)  # Redis may have been emptied
        wishes = client.hgetall(steering_key(settings.kafka_group_id))
        tasks = sum(client.llen(name) for name in task_lists("persist"))
    except (redis.RedisError, OSError) as error:
        raise steering.redis_away(settings, error) from error
    if wishes.get(PAUSED, name) != name:
        raise Resumed("the intake was resumed, or paused by somebody else, meanwhile: drain again")
    unrested = [number for number in numbers if wishes.get(rest_field(number)) != name]
    if unrested and not steering.is_running(settings, admin):
        unrested = []
    return len(unrested), tasks
