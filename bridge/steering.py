"""What an operator asks of all running bridges: to pause, to go on, and to read the log again from an earlier place.

The wishes stand in one Redis hash for each consumer group, written by kafka_cli.py (clients/steering.py) and looked at
twice a second: `paused`, with the name of the pause or empty once it is over, and `rewind`, {"id", "offsets":
{partition: offset}} as JSON. While Redis is away the bridges stay as they are, and one that has just started reads
nothing. If Redis was emptied, a paused bridge writes its pause there again.
"""

import json
import logging
import time
from collections.abc import Callable, Mapping

import redis
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from bridge.positions import Positions
from redis_keys import PAUSED, REWIND, answer_field, rest_field, steering_key

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
COMMIT_MS = 5_000
BACK_SECONDS = 5.0  # Redis has to answer for so long until it counts as back: it may come and go


class Steering:
    """One bridge's view of the wishes."""

    def __init__(self, client: redis.Redis, group: str, positions: Positions) -> None:
        self.client = client
        self.key = steering_key(group)
        self.positions = positions
        self.pause = ""  # the name of the pause; empty if there is none
        self.known = False  # not before Redis has told: until then the intake may be paused
        self.rewound: set[tuple[str, int]] = set()
        self.unreadable = ""  # what stands there as a rewind and is none; said once
        self.next_look = 0.0
        self.away: float | None = None  # when Redis last gave no answer; None before, and once it is back

    @property
    def paused(self) -> bool:
        return self.pause != ""

    def look(self, at_rest: Callable[[], bool] = lambda: False) -> None:
        """Reads the wishes, every LOOK_SECONDS, and does what is new. `at_rest` says whether nothing is under way."""
        now = time.monotonic()
        if now < self.next_look:
            return
        self.next_look = now + LOOK_SECONDS
        try:
            wishes = {_text(name): _text(value) for name, value in self.client.hgetall(self.key).items()}
            if self.paused and PAUSED not in wishes:
                self.client.hsetnx(self.key, PAUSED, self.pause)
                return
        except (redis.RedisError, OSError) as error:
            # No wish can stand there, or be read by this bridge.
            self.known = (
                self.known or "WRONGTYPE" in str(error) or isinstance(error, redis.exceptions.NoPermissionError)
            )
            self.say_away(now, error)
            return
        self.known = True
        self.say_back(now)
        was_paused, self.pause = self.paused, wishes.get(PAUSED, "")
        if self.paused != was_paused:
            log.warning("intake paused by command" if self.paused else "intake goes on")
        if self.paused:
            self.tell_rest(wishes, at_rest())
        if REWIND in wishes:
            try:
                self.rewind(json.loads(wishes[REWIND]), wishes)
            except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
                if self.unreadable != wishes[REWIND]:
                    log.error("the rewind that was asked for in Redis cannot be read, and is ignored: %s", error)
                self.unreadable = wishes[REWIND]
            except (KafkaError, redis.RedisError, OSError) as error:
                log.warning("not rewound yet: %s", error)

    def say_away(self, now: float, error: Exception) -> None:
        """Once, where it begins."""
        if self.away is None:
            stays = "stays paused" if self.paused else "goes on" if self.known else "waits for the answer"
            log.warning("Redis cannot be asked for a pause or a rewind, the intake %s: %s", stays, error)
        self.away = now

    def say_back(self, now: float) -> None:
        if self.away is not None and now - self.away > BACK_SECONDS:
            self.away = None
            log.info("Redis can be asked for a pause or a rewind again")

    def tell_rest(self, wishes: dict[str, str], at_rest: bool) -> None:
        """Says of each of our partitions whether it is at rest; writes only what has changed."""
        told = {rest_field(part.partition) for part in self.positions.consumer.assignment()}
        try:
            if at_rest:
                if news := {name: wishes[PAUSED] for name in told if wishes.get(name) != wishes[PAUSED]}:
                    self.client.hset(self.key, items=[text for pair in news.items() for text in pair])
            elif gone := told & wishes.keys():
                self.client.hdel(self.key, *gone)
        except (redis.RedisError, OSError) as error:
            log.warning("Redis could not be told whether anything is under way: %s", error)

    def rewind(self, wish: dict[str, object], answers: Mapping[str, str]) -> None:
        """Reads our partitions from the wished offsets, and commits these at once, so that a crash keeps the rewind.

        A partition with an answer is done already, by a bridge that had it before: the command may have died since.
        """
        request, offsets = str(wish["id"]), dict(wish["offsets"])  # type: ignore[call-overload]
        wished = {int(number): int(offset) for number, offset in offsets.items()}
        consumer = self.positions.consumer
        for part in consumer.assignment() - self.positions.unchecked:
            if part.partition not in wished or answer_field(request, part.partition) in answers:
                continue
            if (request, part.partition) not in self.rewound:
                offset = self.positions.go_back(part, wished[part.partition])
                if offset is not None:
                    again = OffsetAndMetadata(offset, self.positions.topic_id, -1)
                    consumer.commit({part: again}, timeout_ms=COMMIT_MS)
                self.rewound.add((request, part.partition))
                log.warning("%s/%d is read again from offset %d, by command", part.topic, part.partition, offset or 0)
            self.client.hset(self.key, answer_field(request, part.partition), str(offsets[str(part.partition)]))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
