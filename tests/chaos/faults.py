"""Carrying out a plan: kills, FLUSHALL, and a Redis that is full. Each fault is said aloud with its time."""

import contextlib
import time
from collections.abc import Callable, Iterator

import redis

from tests.chaos.plan import Event, Plan
from tests.chaos.system import System

FILLER = "chaos:filler:"
LARGEST, SMALLEST = 256 * 1024, 64
# How long a fault waits for a Redis that is just being started.
REDIS_SECONDS = 30.0


def carry_out(system: System, plan: Plan, say: Callable[[str], None]) -> None:
    """All events in their order; returns when the last one has happened."""
    for number, event in enumerate(plan.events, start=1):
        time.sleep(event.after)
        say(f"{number:3d}/{len(plan.events)} {event}")
        if event.action == "kill":
            kill(system, event, pick=number / (len(plan.events) + 1))
        elif event.action == "flush":
            when_redis_answers(system, lambda client: client.flushall())
        else:
            with full_redis(system):
                time.sleep(event.seconds)


def kill(system: System, event: Event, pick: float) -> None:
    """All the parts of an event first; only then are they started again."""
    parts = [system.parts[name] for name in event.parts]
    with contextlib.ExitStack() as held:
        for part in parts:
            held.enter_context(part.lock)
        for part, how in zip(parts, event.how, strict=True):
            part.crash(how, pick)
        for part in parts:
            part.keep_alive()


def when_redis_answers(system: System, act: Callable[[redis.Redis], object]) -> None:
    """Does it as soon as Redis is there, which another fault may have taken away."""
    deadline = time.monotonic() + REDIS_SECONDS
    while True:
        try:
            with contextlib.closing(system.redis()) as client:
                act(client)
                return
        except redis.RedisError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


@contextlib.contextmanager
def full_redis(system: System) -> Iterator[None]:
    """Fills Redis until it refuses to take a single byte more, and frees it at the end of the block."""
    when_redis_answers(system, fill)
    try:
        yield
    finally:
        when_redis_answers(system, free)


def fill(client: redis.Redis) -> None:
    """Large values first, then smaller ones into what is left. noeviction makes the end an error."""
    assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
    number = client.dbsize()
    size = LARGEST
    while size >= SMALLEST:
        try:
            client.set(f"{FILLER}{size}:{number}", b"x" * size)
            number += 1
        except redis.exceptions.OutOfMemoryError:
            size //= 4


def free(client: redis.Redis) -> None:
    for name in client.scan_iter(f"{FILLER}*", count=1000):
        client.delete(name)
