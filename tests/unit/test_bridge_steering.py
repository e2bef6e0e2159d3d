"""A bridge that Redis cannot tell whether it is paused says so, once, and when Redis is back; a rewind is committed and
answered, once; and a partition that is read anew is forgotten first."""

import json
from collections import deque
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from kafka import TopicPartition
from kafka.errors import KafkaTimeoutError, LogTruncationError
from kafka.structs import OffsetAndMetadata

from bridge import steering
from bridge.positions import Positions
from bridge.steering import Steering
from redis_keys import PAUSED, REWIND, answer_field, rest_field

PART = TopicPartition("t", 0)
ANOTHER = TopicPartition("t", 1)


class Redis:
    """Answers with the wishes, where it is there."""

    def __init__(self) -> None:
        self.away = False
        self.full = False
        self.wishes: dict[bytes, bytes] = {}

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        if self.away:
            raise redis.ConnectionError("no answer")
        return self.wishes

    def hset(self, _key: str, *pair: str, items: list[str] | None = None) -> None:
        if self.full:
            raise redis.exceptions.OutOfMemoryError("maxmemory")
        name, value = items or pair
        self.wishes[name.encode()] = value.encode()

    def hdel(self, _key: str, *names: str) -> None:
        for name in names:
            del self.wishes[name.encode()]


class Consumer:
    """One partition of ours, with a committed offset; and what was done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.offset = 10
        self.committed_for = ""  # the id of a topic
        self.fails = False
        self.topic_id: str | None = None
        self.numbers: set[int] | None = {0}
        self._cluster = SimpleNamespace(
            topic_id=lambda _topic: self.topic_id, partitions_for_topic=lambda _topic: self.numbers
        )
        self.position = SimpleNamespace(position=OffsetAndMetadata(12, "", 0))
        self._subscription = SimpleNamespace(assignment={PART: self.position})
        self._fetcher = SimpleNamespace(_completed_fetches=deque(), _paused_completed_fetches={})
        self.positions = Positions(self, "t", lambda parts: self.done.append(f"forget {min(parts).partition}"))

    def assignment(self) -> set[TopicPartition]:
        return {PART}

    def committed(self, part: TopicPartition, timeout_ms: int, metadata: bool = False) -> Any:
        return OffsetAndMetadata(self.offset, self.committed_for, -1) if metadata else self.offset

    def seek(self, part: TopicPartition, offset: int) -> None:
        assert part in self.assignment()
        self.done.append(f"seek {offset}")

    def seek_to_beginning(self, part: TopicPartition) -> None:
        assert part in self.assignment()
        self.done.append("seek beginning")

    def commit(self, offsets: dict[TopicPartition, OffsetAndMetadata], timeout_ms: int) -> None:
        if self.fails:
            raise KafkaTimeoutError("not now")
        self.offset = offsets[PART].offset
        self.done.append(f"commit {self.offset} {offsets[PART].metadata}".strip())


@pytest.fixture
def consumer() -> Consumer:
    return Consumer()


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """Looks once, so many seconds later, and returns what was logged."""
    now = 100.0
    monkeypatch.setattr(steering, "time", SimpleNamespace(monotonic=lambda: now))
    caplog.set_level("INFO")

    def look_at(asked: Steering, *, later: float = steering.LOOK_SECONDS) -> list[str]:
        nonlocal now
        now += later
        caplog.clear()
        asked.look()
        return caplog.messages

    return look_at


@pytest.fixture
def server() -> Redis:
    return Redis()


@pytest.fixture
def asked(server: Redis) -> Steering:
    positions: Any = SimpleNamespace(consumer=SimpleNamespace(assignment=set))
    return Steering(server, "group", positions)  # type: ignore[arg-type]


def test_a_bridge_that_cannot_be_told_whether_it_is_paused_says_so_once(
    look: Callable[..., list[str]], server: Redis, asked: Steering
) -> None:
    server.away = True
    assert look(asked) == ["Redis cannot be asked for a pause or a rewind, the intake waits for the answer: no answer"]
    assert [look(asked) for _ in range(20)] == [[]] * 20
    assert not asked.paused


def test_it_says_when_redis_is_back_for_good(look: Callable[..., list[str]], server: Redis, asked: Steering) -> None:
    server.wishes = {PAUSED.encode(): b"a pause"}
    assert look(asked) == ["intake paused by command"]
    server.away = True
    assert look(asked) == ["Redis cannot be asked for a pause or a rewind, the intake stays paused: no answer"]
    server.away = False
    assert look(asked) == []
    server.away = True
    assert look(asked) == [], "it comes and goes"
    server.away = False
    assert look(asked, later=steering.BACK_SECONDS + 1) == ["Redis can be asked for a pause or a rewind again"]
    server.away = True
    assert len(look(asked)) == 1


def test_a_rewind_that_cannot_be_read_is_said_once(
    look: Callable[..., list[str]], server: Redis, consumer: Consumer
) -> None:
    asked = Steering(server, "group", consumer.positions)  # type: ignore[arg-type]
    for rubbish in (b"no JSON", b'{"offsets": 1}'):
        server.wishes = {REWIND.encode(): rubbish}
        (said,) = look(asked)
        assert said.startswith("the rewind that was asked for in Redis cannot be read, and is ignored")
        assert [look(asked) for _ in range(3)] == [[]] * 3
    assert consumer.done == []


@pytest.fixture
def rewinding(server: Redis, consumer: Consumer) -> Steering:
    server.wishes = {REWIND.encode(): json.dumps({"id": "r", "offsets": {"0": 3, "1": 3}}).encode()}
    return Steering(server, "group", consumer.positions)  # type: ignore[arg-type]


def answered(server: Redis) -> bool:
    return answer_field("r", 0).encode() in server.wishes


def test_a_rewind_is_committed_and_made_once_though_redis_takes_no_answer(
    look: Callable[..., list[str]], server: Redis, consumer: Consumer, rewinding: Steering
) -> None:
    """A Redis that is full can be read: each look would go back again."""
    server.full = True
    consumer.positions.topic_id = "an id"
    for _ in range(3):
        look(rewinding)
        assert consumer.done == ["seek 3", "forget 0", "commit 3 an id"]
        assert not answered(server)
    server.full = False
    look(rewinding)
    assert answered(server)
    assert len(consumer.done) == 3


def test_a_rewind_that_is_not_committed_is_made_again_and_ends_no_bridge(
    look: Callable[..., list[str]], server: Redis, consumer: Consumer, rewinding: Steering
) -> None:
    consumer.fails = True
    assert any("not rewound yet" in line for line in look(rewinding))
    assert not answered(server)
    consumer.fails = False
    look(rewinding)
    assert consumer.done[-1] == "commit 3"
    assert answered(server)


def test_a_partition_whose_topic_may_be_another_one_is_not_rewound_yet(
    look: Callable[..., list[str]], server: Redis, consumer: Consumer, rewinding: Steering
) -> None:
    consumer.positions.unchecked = {PART}
    look(rewinding)
    assert consumer.done == []
    consumer.positions.unchecked = set()
    look(rewinding)
    assert answered(server)


def test_a_bridge_that_has_work_again_is_not_at_rest(server: Redis, consumer: Consumer) -> None:
    asked = Steering(server, "group", consumer.positions)  # type: ignore[arg-type]
    server.wishes = {PAUSED.encode(): b"a pause"}
    for at_rest in (True, False, True):
        asked.next_look = 0.0
        asked.look(partial(bool, at_rest))
        assert server.wishes.get(rest_field(0).encode()) == (b"a pause" if at_rest else None)


def test_a_topic_that_was_made_again_is_forgotten_and_read_from_its_beginning(consumer: Consumer) -> None:
    """What is under way is of the old one: its commit would skip records of the new one."""
    consumer.topic_id = "one"
    consumer.positions.look()
    assert consumer.done == []
    consumer.topic_id = "two"
    consumer.positions.look()
    assert consumer.done == ["forget 0", "seek beginning"]


def test_a_rewind_skips_nothing_of_a_topic_made_again_for_which_nothing_is_committed_yet(consumer: Consumer) -> None:
    """The offset of the topic before still stands, beyond what was read of the new one."""
    consumer.topic_id = consumer.committed_for = "one"
    consumer.positions.look()
    assert consumer.positions.go_back(PART, 8) == 8
    consumer.topic_id = "two"
    consumer.positions.look()
    consumer.done.clear()
    assert consumer.positions.go_back(PART, 8) is None
    assert consumer.done == ["forget 0", "seek beginning"]


@pytest.mark.parametrize(("topic_id", "done"), [("two", ["forget 0", "seek beginning"]), (None, [])])
def test_no_offset_counts_as_compared_before_the_client_knows_the_topic(
    consumer: Consumer, topic_id: str | None, done: list[str]
) -> None:
    """Another member that knew it sooner may give out its partitions. Brokers before Kafka 2.8 tell no id."""
    positions = consumer.positions
    consumer.committed_for, consumer.numbers = "one", None
    positions.unchecked = {PART}
    positions.look()
    positions.check()
    assert (positions.unchecked, consumer.done) == ({PART}, [])
    consumer.numbers, consumer.topic_id = {0}, topic_id
    positions.check()
    assert (positions.unchecked, consumer.done) == (set(), done)


@pytest.mark.parametrize("begins", [None, OffsetAndMetadata(0, "", -1)], ids=["not known yet", "known"])
def test_where_the_topic_before_differed_is_no_place_in_the_one_made_again(
    consumer: Consumer, begins: OffsetAndMetadata | None
) -> None:
    """The client asks about its old position, and may raise what it learned only after it was sent to the beginning."""
    consumer.topic_id = "one"
    consumer.positions.look()
    consumer.topic_id = "two"
    consumer.positions.look()
    consumer.position.position = begins
    consumer.positions.mend(LogTruncationError({PART: OffsetAndMetadata(5, "", 0)}))
    assert consumer.done == ["forget 0", "seek beginning"]


@pytest.mark.parametrize("divergent", [None, OffsetAndMetadata(5, "", -1)])
def test_a_partition_that_was_cut_off_and_is_somebody_elses_by_now_is_left_to_him(
    consumer: Consumer, divergent: OffsetAndMetadata | None
) -> None:
    consumer.positions.mend(LogTruncationError({ANOTHER: divergent}))
    assert not any("seek" in each for each in consumer.done)


@pytest.mark.parametrize("how", ["made again", "cut off", "given back"])
def test_what_was_read_before_the_log_was_another_one_does_not_make_a_loss_harmless(
    consumer: Consumer, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    positions = consumer.positions
    positions.go_back(PART, 3)
    positions.say_removed(PART, 3, 8)
    assert "LOST" not in caplog.text
    if how == "made again":
        positions.restart({PART})
    elif how == "cut off":
        positions.truncated(PART, OffsetAndMetadata(2, "", -1))
    else:
        positions.unchecked = {PART}
        positions.check()
    positions.say_removed(PART, 3, 8)
    assert "LOST 5 records, offsets 3 to 7" in caplog.text
