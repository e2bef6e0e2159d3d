"""Where the numbers of all processes meet: in Redis, brought there by a thread of each process about once a second.

Redis holds nothing here that matters to a record. When it loses everything, counters begin anew at zero, which
Prometheus takes for a restart. Numbers that cannot be delivered wait in the process.
"""

import atexit
import logging
import os
import socket
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

import settings as configuration
from redis_keys import HISTORY, PROCESSES, TOTALS, process_member, process_of
from telemetry.numbers import BY_NAME, SEPARATOR, TALLY

log = logging.getLogger(__name__)

EVERY_SECONDS = 1.0
BUCKET_SECONDS = 5
HISTORY_SECONDS = 15 * 60
# A process that has been silent for so long is not up; a task that keeps Python busy may make it miss a few turns.
SILENT_SECONDS = 15.0
FORGET_SECONDS = 3600.0
REDIS_SECONDS = 2.0


class Process(NamedTuple):
    """A running process: its part ("bridge", "beat" or the worker of a queue; a worker of several queues is one for
    each), where it runs, and the seconds since it was last heard of."""

    part: str
    host: str
    pid: int
    silent: float


class Kept(NamedTuple):
    """What Redis has: totals by field, history as (unix time, fields) of each span, oldest first, and processes."""

    totals: dict[str, float]
    history: list[tuple[int, dict[str, float]]]
    processes: list[Process]


def connect(address: str) -> redis.Redis:
    return redis.Redis.from_url(
        address, socket_timeout=REDIS_SECONDS, socket_connect_timeout=REDIS_SECONDS, decode_responses=True
    )


def deliver(client: redis.Redis, *processes: str) -> None:
    """Delivers what was counted, and says that `processes` are up. Raises redis.RedisError; nothing is lost of the
    totals then, nor counted twice if Redis refuses some of it, as when another type lies under a key.

    Times are the server's, so that the clocks of several machines need not agree.
    """
    taken = TALLY.take()
    try:
        now = client.time()[0]
        pipeline = client.pipeline(transaction=True)
        for name, amount in taken.items():
            pipeline.hincrbyfloat(TOTALS, name, amount)
        if processes:
            pipeline.zadd(PROCESSES, dict.fromkeys(processes, now))
            pipeline.zremrangebyscore(PROCESSES, "-inf", now - FORGET_SECONDS)
        answers = pipeline.execute(raise_on_error=False)
    except redis.RedisError:
        TALLY.put_back(taken)
        raise
    refused = {name for name, answer in zip(taken, answers, strict=False) if isinstance(answer, redis.ResponseError)}
    TALLY.put_back({name: taken[name] for name in refused})
    # After the totals, and only what they took: what is put back comes again, and would stand in the history twice.
    added = {name: amount for name, amount in taken.items() if name not in refused and is_in_history(name)}
    if added:
        answers += add_to_history(client, added, now)
    for answer in answers:
        if isinstance(answer, redis.ResponseError):
            raise answer


def add_to_history(client: redis.Redis, added: Mapping[str, float], now: int) -> list[Any]:
    span = f"{HISTORY}:{now // BUCKET_SECONDS * BUCKET_SECONDS}"
    pipeline = client.pipeline(transaction=True)
    for name, amount in added.items():
        pipeline.hincrbyfloat(span, name, amount)
    pipeline.expire(span, HISTORY_SECONDS + 60)
    return pipeline.execute(raise_on_error=False)


def is_in_history(name: str) -> bool:
    return BY_NAME[name.partition(SEPARATOR)[0]].history


def read(client: redis.Redis) -> Kept:
    """Everything that was delivered, in two round trips. Raises redis.RedisError."""
    now = client.time()[0]
    last = now // BUCKET_SECONDS * BUCKET_SECONDS
    times = range(last - HISTORY_SECONDS + BUCKET_SECONDS, last + 1, BUCKET_SECONDS)
    pipeline = client.pipeline(transaction=False)
    pipeline.hgetall(TOTALS)
    # What lies far ahead was said before the server's clock was set back: who is up has said it again since.
    pipeline.zrangebyscore(PROCESSES, now - SILENT_SECONDS, now + SILENT_SECONDS, withscores=True)
    for time in times:
        pipeline.hgetall(f"{HISTORY}:{time}")
    totals, processes, *spans = pipeline.execute()
    return Kept(
        numbers(totals),
        [(time, numbers(span)) for time, span in zip(times, spans, strict=True)],
        [process(member, now - score) for member, score in processes],
    )


def numbers(found: dict[str, str]) -> dict[str, float]:
    return {name: float(amount) for name, amount in found.items() if name.partition(SEPARATOR)[0] in BY_NAME}


def process(member: str, silent: float) -> Process:
    return Process(*process_of(member), max(0.0, silent))


class Delivery:
    """The thread of this process that delivers. After a fork the child needs one of its own."""

    def __init__(self, address: str, *parts: str) -> None:
        self.client = connect(address)
        self.processes = [process_member(part, socket.gethostname(), os.getpid()) for part in parts]
        self.pid = os.getpid()
        self.ended = threading.Event()
        self.away = False
        self.thread = threading.Thread(target=self.run, name="deliver numbers", daemon=True)
        self.thread.start()

    def run(self) -> None:
        while True:
            self.deliver(*self.processes)
            if self.ended.wait(EVERY_SECONDS):
                return

    def deliver(self, *processes: str) -> None:
        try:
            deliver(self.client, *processes)
            self.away = False
        except redis.RedisError as error:
            if not self.away:
                log.info("numbers wait, broker away: %s", error)
            self.away = True

    def end(self) -> None:
        """Delivers what is left, and takes this process off the list."""
        self.ended.set()
        self.thread.join(2 * REDIS_SECONDS)
        if self.away:
            return
        self.deliver()
        try:
            self.client.zrem(PROCESSES, *self.processes)
            self.client.close()
        except redis.RedisError as error:
            log.info("could not sign off, broker away: %s", error)


_delivery: Delivery | None = None


def begin(*parts: str) -> None:
    """From now on this process, which is all of these `parts`, delivers its numbers. Called once in each process, by
    its main thread."""
    global _delivery
    if _delivery is None or _delivery.pid != os.getpid():
        _delivery = Delivery(configuration.load().redis_address, *parts)
        atexit.register(end)


def end() -> None:
    global _delivery
    if _delivery is not None and _delivery.pid == os.getpid():
        _delivery.end()
        _delivery = None


def count_by_part(processes: Iterable[Process], known: Sequence[str]) -> dict[str, int]:
    """How many processes of each part are up; a known part without any is 0."""
    counted = dict.fromkeys(known, 0)
    for each in processes:
        counted[each.part] = counted.get(each.part, 0) + 1
    return counted
