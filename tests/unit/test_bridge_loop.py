"""The bridge's loop where Kafka or Redis would have to misbehave at one exact moment: with stand-ins for both."""

import json
import re
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from kafka import TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import (
    InvalidRecordError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    RecordListTooLargeError,
)
from kafka.future import Future
from redis.exceptions import OutOfMemoryError, ResponseError

import kafka_clients
from bridge import consumer, hand_over, letters, topics
from bridge.consumer import Bridge
from bridge.hand_over import HandOver, HandOvers, SentTask
from bridge.letters import Letters, SentLetter
from bridge.message import BadRecord
from letter_headers import Coordinates, naming
from settings import Settings
from tasks import outages
from tasks.app import app
from tasks.outages import Outage
from tasks.results import PolledRedisBackend

PART = TopicPartition("t", 0)


def a_record(offset: int) -> Any:
    return ConsumerRecord("t", 0, 0, offset, 0, 1, None, b"{}", [], None, -1, 2, -1)


class FullWindow:
    count = 16
    app = SimpleNamespace(backend=SimpleNamespace(client=None))

    def in_the_way(self) -> int:
        return self.count

    def waiting_for_letters(self) -> int:
        return 0


class Consumer:
    """Loses a partition and has it back, with records, within one poll."""

    def __init__(self) -> None:
        self._cluster = SimpleNamespace(topic_id=lambda _topic: None)
        self._coordinator = SimpleNamespace(rejoining=False, need_rejoin=lambda: False, _offset_fetch_futures={})
        self.during_poll: Callable[[], None] = lambda: None
        self.sought: list[tuple[TopicPartition, int]] = []
        self.patience: list[int] = []  # of each poll

    def seek(self, part: TopicPartition, offset: int) -> None:
        self.sought.append((part, offset))

    def assignment(self) -> set[TopicPartition]:
        return {PART}

    def pause(self, *_parts: TopicPartition) -> None:
        """Of no account here."""

    def poll(self, timeout_ms: int, max_records: int | None = None) -> dict[TopicPartition, list[Any]]:
        self.patience.append(timeout_ms)
        self.during_poll()
        return {PART: [a_record(7)]}


def test_records_of_a_partition_that_went_and_came_back_in_one_poll_are_kept() -> None:
    fake = Consumer()
    bridge = Bridge(Settings(), fake, FullWindow())  # type: ignore[arg-type]
    bridge.steering.known = True
    bridge.gather({PART: [a_record(5)]})
    bridge.full_since = -10.0
    fake.during_poll = lambda: bridge.rebalances.on_partitions_revoked({PART})
    bridge.wait_for_room()
    assert [record.offset for record in bridge.gathered] == [7]
    assert bridge.gathered_bytes == 2


@pytest.mark.parametrize(("known", "pause"), [(False, ""), (True, "a pause")])
def test_what_comes_with_a_new_partition_is_read_again_after_the_pause(known: bool, pause: str) -> None:
    """It is not paused yet in the poll that assigns it. Nor is it known whether to pause before Redis has answered."""
    fake = Consumer()
    bridge = Bridge(Settings(), fake, FullWindow())  # type: ignore[arg-type]
    bridge.steering.known, bridge.steering.pause = known, pause
    bridge.full_since = -10.0
    bridge.wait_for_room()
    assert not bridge.gathered
    assert fake.sought == [(PART, 7)]


@pytest.mark.parametrize(("known", "pause"), [(False, ""), (True, "a pause")])
def test_what_is_gained_and_lost_while_nothing_is_taken_in_is_looked_after(
    known: bool, pause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit for a partition that was not compared with its topic hides that the topic was made again."""
    fake = Consumer()
    bridge = Bridge(Settings(), fake, FullWindow())  # type: ignore[arg-type]
    bridge.steering.known, bridge.steering.pause = known, pause
    other = TopicPartition("t", 1)
    bridge.offsets.finish(bridge.offsets.begin(other, 5))
    bridge.full_since = -10.0
    compared: list[set[TopicPartition]] = []
    monkeypatch.setattr(bridge.positions, "check", lambda: compared.append(set(bridge.positions.unchecked)))

    def rebalance() -> None:
        bridge.rebalances.on_partitions_revoked({other})
        bridge.rebalances.on_partitions_assigned({PART})

    fake.during_poll = rebalance
    bridge.wait_for_room()
    assert compared == [{PART}]
    assert not bridge.offsets.committable(), "else this bridge would never be at rest"


@pytest.mark.parametrize(("rejoining", "needed"), [(True, False), (True, True), (False, True)])
def test_each_poll_waits_for_a_rebalance_to_end(rejoining: bool, needed: bool) -> None:
    """kafka-python would leave the join half done, and forget it where nothing needs it any more."""
    asked = []

    def request() -> None:
        asked.append(True)

    fake = Consumer()
    fake._coordinator = SimpleNamespace(
        rejoining=rejoining, need_rejoin=lambda: needed or bool(asked), request_rejoin=request
    )
    bridge = Bridge(Settings(), fake, FullWindow())  # type: ignore[arg-type]
    bridge.steering.known = True
    bridge.full_since = -10.0
    bridge.wait_for_room()
    bridge.hand_overs, bridge.full_since = Taken(), None  # type: ignore[assignment]
    bridge.take_in()
    assert fake.patience == [kafka_clients.REJOIN_POLL_MS] * 2
    assert bool(asked) is not needed


class Taken:
    """Hand-overs that are finished at once."""

    count = 0
    app = FullWindow.app
    in_the_way = FullWindow.in_the_way
    waiting_for_letters = FullWindow.waiting_for_letters

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def begin(self, records: list[Any], _finished: Callable[[], None]) -> None:
        self.sizes.append(len(records))


def test_a_record_goes_at_once_and_those_right_behind_it_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("bridge.consumer.time", SimpleNamespace(monotonic=lambda: now, sleep=lambda _seconds: None))
    taken = Taken()
    bridge = Bridge(Settings(), Consumer(), taken)  # type: ignore[arg-type]

    def comes(*offsets: int) -> None:
        bridge.gather({PART: [a_record(offset) for offset in offsets]})
        bridge.hand_over_gathered()

    comes(1)
    assert taken.sizes == [1]
    comes(2)
    comes(3, 4)
    assert taken.sizes == [1], "they wait for the end of the pause"
    now += consumer.PAUSE_SECONDS
    bridge.hand_over_gathered()
    assert taken.sizes == [1, 3]
    now += consumer.PAUSE_MOST_SECONDS
    comes(5)
    assert taken.sizes == [1, 3, 1]


def test_what_fills_a_hand_over_waits_for_no_pause() -> None:
    taken = Taken()
    bridge = Bridge(Settings(bridge_batch_max=10), Consumer(), taken)  # type: ignore[arg-type]
    for first in (0, 10, 20):
        bridge.gather({PART: [a_record(first + each) for each in range(10)]})
        bridge.hand_over_gathered()
    assert taken.sizes == [10, 10, 10]


class Committing(Consumer):
    """Keeps what it is told to commit, as offsets."""

    def __init__(self) -> None:
        super().__init__()
        self.commits: list[int] = []

    def commit(self, offsets: dict[TopicPartition, Any], timeout_ms: int) -> None:
        self.commits += [each.offset for each in offsets.values()]

    def close(self, autocommit: bool, timeout_ms: int) -> None:
        """Of no account here."""


@pytest.mark.parametrize(("unchecked", "commits"), [(set(), [6]), ({PART}, [])], ids=["checked", "unchecked"])
def test_the_last_commit_is_left_out_where_the_topic_may_be_another_one(
    unchecked: set[TopicPartition], commits: list[int]
) -> None:
    fake = Committing()
    bridge = Bridge(Settings(), fake, Taken())  # type: ignore[arg-type]
    bridge.offsets.finish(bridge.offsets.begin(PART, 6))
    bridge.positions.unchecked = unchecked
    bridge.finish()
    assert fake.commits == commits


@pytest.fixture
def sent() -> list[str]:
    return []


@pytest.fixture
def hand_overs(sent: list[str]) -> HandOvers:
    fake = SimpleNamespace(send_task=lambda name, **_: sent.append(name))
    return HandOvers(Settings(bridge_window=16), fake, None)


def test_only_the_headers_of_a_second_try_need_a_closer_look(
    hand_overs: HandOvers, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = a_record(5)._replace(value=b'{"text": "a"}', headers=[("traceparent", b"00-4bf9-00f0-01"), ("no", None)])
    second = record._replace(headers=naming(Coordinates("t", 0, 1, 0)))
    rows, bad = hand_overs.decoded([record, second])
    assert (bad, [row[4:] for row in rows]) == ([], [(0, 0, 5, None), (0, 0, 1, ("t", 0, 1))])
    monkeypatch.setattr(hand_over, "decode", None)
    assert hand_overs.decoded([record]) == (rows[:1], [])


def overdue(hand_overs: HandOvers, now: float) -> SentTask:
    waiting = HandOver([], lambda: None)
    task = SentTask("tasks.persist_text", [], "", 10.0)
    task.published, task.due = now - 11, now - 1
    waiting.sent.append(task)
    hand_overs.under_way.append(waiting)
    return task


@pytest.mark.parametrize(
    ("queued", "age", "again"),
    [(0, 11, True), (16, 11, False), (16, 61, True), (64, 3600, False)],
    ids=["lost", "waiting", "lost in a long queue", "nobody works"],
)
def test_a_copy_is_sent_of_what_is_lost_and_not_of_what_waits(
    hand_overs: HandOvers, sent: list[str], monkeypatch: pytest.MonkeyPatch, queued: int, age: float, again: bool
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: queued)
    overdue(hand_overs, now).published = now - age
    hand_overs.renew()
    assert sent == (["tasks.persist_text"] if again else [])


class Results:
    """Celery's results of tasks that have all succeeded, and how many of them were deleted at once."""

    def __init__(self) -> None:
        self.deleted: list[int] = []
        self.client = SimpleNamespace(delete=lambda *keys: self.deleted.append(len(keys)))

    def get_key_for_task(self, task_id: str) -> str:
        return task_id

    def mget(self, keys: list[str]) -> list[bytes]:
        return [b"{}" for _ in keys]

    def decode_result(self, _answer: bytes) -> dict[str, Any]:
        return {"status": "SUCCESS", "result": {"stored": 1, "rejected": []}}


def test_results_that_were_read_are_deleted_many_at_once_also_when_nothing_is_under_way_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr("bridge.hand_over.time", SimpleNamespace(monotonic=lambda: now))
    results = Results()
    hand_overs = HandOvers(Settings(), SimpleNamespace(backend=results), None)
    hand_overs.next_drop = now + hand_over.DROP_SECONDS
    for _ in range(3):
        overdue(hand_overs, now)
        hand_overs.collect()
    assert (hand_overs.count, results.deleted) == (0, [])
    now += hand_over.DROP_SECONDS
    hand_overs.collect()
    hand_overs.collect()
    assert results.deleted == [3]


@pytest.mark.parametrize("name", ["tasks.persist_text", "tasks.record_dead_letters"])
def test_a_task_that_somebody_revokes_goes_on_at_once_under_an_id_that_no_worker_discards(
    hand_overs: HandOvers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    results: dict[str, bytes] = {}
    ids: list[str] = []
    backend = SimpleNamespace(
        get_key_for_task=str,
        mget=lambda keys: list(map(results.get, keys)),
        decode_result=app.backend.decode_result,
    )
    hand_overs.app = SimpleNamespace(backend=backend, send_task=lambda _name, *, task_id, **_: ids.append(task_id))
    task = overdue(hand_overs, time.monotonic())
    task.name, task.seen, task.sent_again, task.due = name, b"RETRY", True, time.monotonic() + 60
    first = task.id
    why = app.backend.prepare_exception(TaskRevokedError("revoked"), "json")
    results[first] = json.dumps({"status": "REVOKED", "result": why, "task_id": first}).encode()
    hand_overs.collect()
    hand_overs.collect()
    assert ids == [task.id]
    assert task.id != first
    assert (hand_overs.count, hand_overs.under_way[0].is_put_off) == (1, False)
    assert [record.getMessage() for record in caplog.records] == [
        f"{name}  was revoked as {first}, sent again as {task.id}"
    ]


def test_a_lease_grows_only_by_what_was_sent(hand_overs: HandOvers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: 0)
    task = overdue(hand_overs, time.monotonic())
    task.published = None
    hand_overs.renew()
    assert task.lease == 10.0


def test_a_lease_doubles_each_time_that_it_has_run_out_up_to_a_bound(
    hand_overs: HandOvers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: 1)
    task = overdue(hand_overs, time.monotonic())
    leases = []
    for _ in range(4):
        hand_overs.renew()
        leases.append(task.lease)
        task.due = 0.0
    assert leases == [20.0, 40.0, hand_over.LEASE_MOST_SECONDS, hand_over.LEASE_MOST_SECONDS]


@pytest.mark.parametrize("age", [11, 7, 3], ids=["overdue", "in no queue", "overtaken"])
def test_what_is_not_sent_is_neither_said_to_be_nor_given_a_longer_lease(
    hand_overs: HandOvers, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, age: float
) -> None:
    def send_task(*_: object, **__: object) -> None:
        raise OutOfMemoryError("used memory > 'maxmemory'")

    hand_overs.app = SimpleNamespace(send_task=send_task)
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: 0)
    task = overdue(hand_overs, time.monotonic())
    task.published, task.due = time.monotonic() - age, time.monotonic() + 10 - age
    hand_overs.finished.extend(range(100, 200) if age == 3 else [])
    hand_overs.renew()
    assert caplog.messages == ["broker away, tasks will be sent again: used memory > 'maxmemory'"]
    assert (task.lease, task.sent_again) == (10.0, False)


def test_sending_a_task_subscribes_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(app.backend) is PolledRedisBackend
    subscribed: list[str] = []
    monkeypatch.setattr(app.backend, "result_consumer", SimpleNamespace(consume_from=subscribed.append))
    app.backend.on_task_call(None, "an id")
    assert subscribed == []


def test_who_waits_for_a_result_looks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told on the channel on which Celery would wait."""
    answers = iter([None, b'{"status": "SUCCESS", "result": 5, "task_id": "an id"}'])
    monkeypatch.setattr(app.backend, "get", lambda _key: next(answers))
    monkeypatch.setattr(app.backend, "result_consumer", None)
    assert app.AsyncResult("an id").get(timeout=5, interval=0.01) == 5


def test_a_task_that_many_later_ones_have_overtaken_is_sent_again_at_once(
    hand_overs: HandOvers, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: 16)
    task = overdue(hand_overs, time.monotonic())
    task.published, task.due, task.order = time.monotonic() - 3, time.monotonic() + 7, 5
    hand_overs.finished.extend(range(6, 17))
    hand_overs.renew()
    assert sent == [], "11 may have been in the hands of others"
    hand_overs.finished.append(17)
    hand_overs.renew()
    assert sent == ["tasks.persist_text"]
    hand_overs.renew()
    assert sent == ["tasks.persist_text"], "it is the last in the queue now"
    task.published = time.monotonic() - 3
    hand_overs.finished.extend(range(100, 200))
    hand_overs.renew()
    assert sent == ["tasks.persist_text"], "a second time it is not lost but slow, until its lease has run out"


@pytest.mark.parametrize(("queued", "age", "again"), [(0, 7, True), (1, 7, False), (0, 5, False)])
def test_a_task_that_is_in_no_queue_and_not_done_is_sent_again_once(
    hand_overs: HandOvers, sent: list[str], monkeypatch: pytest.MonkeyPatch, queued: int, age: float, again: bool
) -> None:
    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: queued)
    task = overdue(hand_overs, time.monotonic())
    task.published, task.due = time.monotonic() - age, time.monotonic() + 5
    hand_overs.renew()
    assert sent == (["tasks.persist_text"] if again else [])
    task.published, hand_overs.looked = time.monotonic() - 7, 0.0
    sent.clear()
    hand_overs.renew()
    assert sent == ([] if again or queued else ["tasks.persist_text"])


def test_nothing_counts_as_lost_before_its_result_was_asked_for(
    hand_overs: HandOvers, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_keys: list[str]) -> None:
        raise ConnectionError

    monkeypatch.setattr(hand_over, "length_at_priority", lambda *_: 0)
    hand_overs.app.backend = SimpleNamespace(get_key_for_task=str, mget=away)
    task = overdue(hand_overs, time.monotonic())
    task.published, task.due = time.monotonic() - 9, time.monotonic() + 1
    hand_overs.collect()
    hand_overs.renew()
    assert sent == []
    hand_overs.looked = 0.0
    hand_overs.broker_away_until = time.monotonic() + 60
    hand_overs.renew()
    assert (sent, task.sent_again) == ([], False), "it was not sent"


def test_a_queue_that_is_no_list_is_said_with_its_key(hand_overs: HandOvers, caplog: pytest.LogCaptureFixture) -> None:
    def send_task(*_: object, **__: object) -> None:
        raise ResponseError("WRONGTYPE of value")

    hand_overs.app = SimpleNamespace(send_task=send_task)
    hand_overs.publish(overdue(hand_overs, 100.0))
    assert caplog.messages == ["broker away, tasks will be sent again: the key 'persist': WRONGTYPE of value"]


def test_a_broker_that_refuses_is_said_once_and_when_it_is_back_for_good(
    hand_overs: HandOvers, sent: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, refuses = 100.0, True
    monkeypatch.setattr("bridge.hand_over.time", SimpleNamespace(monotonic=lambda: now))

    def send_task(*_: object, **__: object) -> None:
        if refuses:
            raise OutOfMemoryError("used memory > 'maxmemory'")

    def mget(keys: list[str]) -> list[None]:
        send_task()
        return [None for _ in keys]

    hand_overs.app = SimpleNamespace(send_task=send_task, backend=SimpleNamespace(get_key_for_task=str, mget=mget))
    task = overdue(hand_overs, now)
    caplog.set_level("INFO")
    for refuses in (True, True, False, True, False):  # noqa: B007 - for send_task
        now += 2.0
        hand_overs.publish(task)
        hand_overs.collect()
    assert [record.getMessage() for record in caplog.records] == [
        "broker away, tasks will be sent again: used memory > 'maxmemory'",
        "broker away, results unknown: used memory > 'maxmemory'",
    ]
    caplog.clear()
    for _ in range(2):
        now += hand_over.BACK_SECONDS
        hand_overs.publish(task)
        hand_overs.collect()
    assert [record.getMessage() for record in caplog.records] == [
        "broker back, no more of: tasks will be sent again",
        "broker back, no more of: results unknown",
    ]


def test_each_try_of_a_task_leaves_a_result_of_its_own() -> None:
    """By that the bridge sees that a worker is at it."""
    results = []
    for attempt in range(3):
        task = SimpleNamespace(
            name="tasks.persist_text",
            request=SimpleNamespace(retries=attempt, delivery_info={"routing_key": "persist"}, argsrepr=""),
            retry=lambda *, exc, **_: exc,
        )
        why = outages.retry(task, Outage("away"))
        results.append(app.backend.encode_result(why, "RETRY"))
    assert results[0] != results[1] != results[2]


def test_a_task_that_tries_again_was_not_overtaken(hand_overs: HandOvers, sent: list[str]) -> None:
    task = overdue(hand_overs, time.monotonic())
    task.published, task.due, task.seen = time.monotonic() - 3, time.monotonic() + 7, b"RETRY"
    hand_overs.finished.extend(range(1, 100))
    hand_overs.renew()
    assert sent == []


def test_a_bad_record_whose_topic_is_not_there_does_not_hold_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kafka may be silent: to ask it for the topic takes many seconds then, and the bridge has to end within ten."""
    asked, answer = threading.Semaphore(0), threading.Event()

    def create(_settings: Settings, *, only: str) -> list[str]:
        asked.release()
        answer.wait(10)
        return [only]

    def refuse(*_: object, **__: object) -> None:
        raise KafkaTimeoutError("no metadata of it")

    monkeypatch.setattr(topics, "create", create)
    letters = Letters(Settings(), SimpleNamespace(send=refuse))
    letter = letters.send(a_record(0), BadRecord("invalid-json", "why"))
    for _ in range(2):
        letters.away_until = letter.next_try = 0.0
        assert letters.missing([letter]) == [letter]
    assert letter.future is None
    assert asked.acquire(timeout=5)
    assert not asked.acquire(timeout=0.2), "once, while it has not answered"
    answer.set()


def test_where_kafka_takes_no_dead_letter_one_is_tried_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each try may block as long as a time-out."""
    now = 100.0
    tried: list[str] = []

    def refuse(topic: str, **_: object) -> None:
        tried.append(topic)
        raise KafkaTimeoutError("away")

    monkeypatch.setattr("bridge.letters.time", SimpleNamespace(monotonic=lambda: now))
    own = Letters(Settings(), SimpleNamespace(send=refuse))
    monkeypatch.setattr(own, "make_topic_meanwhile", lambda: None)
    waiting = [own.send(a_record(offset), BadRecord("invalid-json", "why")) for offset in range(3)]
    assert own.missing(waiting) == waiting
    assert len(tried) == 1
    now += letters.AGAIN_SECONDS
    assert own.missing(waiting) == waiting
    assert len(tried) == 2, "and so each time"


def test_a_refused_dead_letter_goes_behind_those_that_were_refused_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one batch again, they would be refused with it for ever."""
    now = 100.0
    sent: list[int] = []
    refusals = {0: InvalidRecordError("no key"), 1: KafkaError("refused because of other records in the batch")}

    def refuse(_settings: object, _topic: str, record: ConsumerRecord, *_: object) -> Any:
        sent.append(record.offset)
        return SimpleNamespace(succeeded=lambda: False, failed=lambda: True, exception=refusals[record.offset])

    monkeypatch.setattr("bridge.letters.time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr("bridge.letters.dead_letters.send", refuse)
    own = Letters(Settings(), SimpleNamespace())
    both = [own.send(a_record(offset), BadRecord("invalid-json", "why")) for offset in range(2)]
    assert sent == [0, 1]
    now += letters.AGAIN_SECONDS
    own.missing(both)
    assert sent == [0, 1, 1]
    now += letters.BEHIND_SECONDS
    own.missing(both)
    assert sent == [0, 1, 1, 0]


def test_a_dead_letter_that_is_late_has_its_topic_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    looked: list[float] = []
    under_way = SimpleNamespace(succeeded=lambda: False, failed=lambda: False)
    monkeypatch.setattr("bridge.letters.time", SimpleNamespace(monotonic=lambda: now))
    own = Letters(Settings(), SimpleNamespace(send=lambda *_, **__: under_way))
    monkeypatch.setattr(own, "make_topic_meanwhile", lambda: looked.append(now - 100.0))
    letter = own.send(a_record(0), BadRecord("invalid-json", "why"))
    for _ in range(11):
        assert own.missing([letter]) == [letter]
        now += letters.LATE_SECONDS / 4
    assert looked == [letters.LATE_SECONDS, 2 * letters.LATE_SECONDS]


def stuck(hand_overs: HandOvers, count: int, seen: bytes | None = None) -> None:
    """Hand-overs whose letters Kafka does not take; where `seen` is given, with a task that a worker has put off."""
    for number in range(count):
        waiting = HandOver([a_record(number)], lambda: None)
        waiting.letters.append(SentLetter(a_record(number), BadRecord("invalid-json", "why")))
        if seen:
            waiting.sent.append(SentTask("persist_text", [], "", 10.0))
            waiting.sent[0].seen = seen
        hand_overs.under_way.append(waiting)


@pytest.mark.parametrize("seen", [None, b"a try that failed"], ids=["letters only", "rows that are locked too"])
def test_good_records_do_not_wait_for_letters_that_kafka_does_not_take(
    hand_overs: HandOvers, sent: list[str], seen: bytes | None
) -> None:
    hand_overs.app.backend = SimpleNamespace(client=None)
    bridge = Bridge(hand_overs.settings, Consumer(), hand_overs)
    stuck(hand_overs, bridge.settings.bridge_window - 1, seen)
    good = a_record(100)._replace(value=b'{"text": "good"}')
    bridge.gather({PART: [good]})
    bridge.hand_over_gathered()
    assert sent == ["tasks.persist_text"]
    assert hand_overs.in_the_way() == bridge.settings.bridge_window
    bridge.pause_ends = 0.0
    bridge.gather({PART: [good._replace(offset=101)]})
    bridge.hand_over_gathered()
    assert bridge.has_no_room()
    assert sent == ["tasks.persist_text"], "beyond the window nothing goes"


def test_records_gather_behind_tasks_that_are_at_work_and_have_letters_too(
    hand_overs: HandOvers, sent: list[str]
) -> None:
    hand_overs.app.backend = SimpleNamespace(client=None)
    bridge = Bridge(hand_overs.settings, Consumer(), hand_overs)
    eager = max(consumer.EAGER, bridge.settings.persist_workers + 1)
    stuck(hand_overs, eager, b"a try")
    for hand_over_of_both in hand_overs.under_way:
        hand_over_of_both.sent[0].seen = None
    bridge.gather({PART: [a_record(100)]})
    bridge.hand_over_gathered()
    assert sent == []


class Wishes:
    """Redis, with the wishes to a bridge; as long as `error` is set it raises that."""

    def __init__(self, error: Exception | None, **wishes: str) -> None:
        self.error = error
        self.wishes = wishes

    def hgetall(self, _key: str) -> dict[str, str]:
        if self.error is not None:
            raise self.error
        return self.wishes


def looking(bridge: Bridge) -> bool:
    """Whether it has room after a look at the wishes."""
    bridge.steering.next_look = 0.0
    bridge.steering.look()
    return not bridge.has_no_room()


def test_a_bridge_reads_nothing_before_redis_has_told_whether_the_intake_is_paused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bridge = Bridge(Settings(), Consumer(), Taken())  # type: ignore[arg-type]
    bridge.positions.consumer = SimpleNamespace(assignment=set)
    redis = Wishes(TimeoutError("silent"), paused="a pause")
    bridge.steering.client = redis  # type: ignore[assignment]
    assert [looking(bridge) for _ in range(3)] == [False] * 3
    assert caplog.messages == ["Redis cannot be asked for a pause or a rewind, the intake waits for the answer: silent"]
    redis.error = None
    assert not looking(bridge)
    redis.wishes = {"paused": ""}
    assert looking(bridge)
    redis.error = TimeoutError("silent")
    assert looking(bridge), "it stays as it is"


def test_where_no_wish_can_stand_a_bridge_reads() -> None:
    bridge = Bridge(Settings(), Consumer(), Taken())  # type: ignore[arg-type]
    bridge.steering.client = Wishes(ResponseError("WRONGTYPE of value"))  # type: ignore[assignment]
    assert looking(bridge)


class SmallTopic:
    """Takes records of so many bytes at most; says so as Kafka does, or as the client, which raises."""

    def __init__(self, most: int, refusal: Exception, *, raises: bool) -> None:
        self.most = most
        self.refusal = refusal
        self.raises = raises
        self.sizes: list[int] = []

    def send(self, _topic: str, *, value: bytes, key: bytes, headers: list[tuple[str, bytes]]) -> Future:
        self.sizes.append(len(value or b"") + len(key or b"") + sum(len(name + str(given)) for name, given in headers))
        if self.sizes[-1] <= self.most:
            return Future().success(None)
        if self.raises:
            raise self.refusal
        return Future().failure(self.refusal)


REFUSALS = pytest.mark.parametrize(
    ("refusal", "raises"),
    [(MessageSizeTooLargeError(), False), (RecordListTooLargeError(), False), (MessageSizeTooLargeError(), True)],
    ids=["topic", "segment", "client"],
)


@REFUSALS
def test_a_letter_that_is_too_large_goes_again_at_once_in_half_until_it_is_taken(
    refusal: Exception, raises: bool
) -> None:
    topic = SmallTopic(100_000, refusal, raises=raises)
    letters = Letters(Settings(), topic)
    letter = letters.send(a_record(0)._replace(value=b"{" * 350_000), BadRecord("invalid-json", "why"))
    other = letters.send(a_record(1), BadRecord("invalid-json", "why"))
    for _ in range(4):
        letters.missing([letter, other])
    assert (letter.has_arrived, other.has_arrived, len(topic.sizes)) == (True, True, 4)
    assert topic.sizes[-1] > 80_000


@REFUSALS
def test_a_topic_that_takes_no_letter_at_all_is_an_outage_that_is_told_and_ends(
    refusal: Exception, raises: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = 100.0
    monkeypatch.setattr("bridge.letters.time", SimpleNamespace(monotonic=lambda: now))
    topic = SmallTopic(100, refusal, raises=raises)
    letters = Letters(Settings(), topic)
    letter = letters.send(a_record(0)._replace(value=b"{" * 5_000), BadRecord("invalid-json", "why"))
    for _ in range(10):
        letters.missing([letter])
    tried = len(topic.sizes)
    assert tried < 10
    for _ in range(3):
        now += 1.0
        assert letters.missing([letter]) == [letter]
        assert letters.missing([letter]) == [letter], "once a second"
    assert len(topic.sizes) == tried + 3
    said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert "text-messages.dead-letters" in said[0]
    assert "max.message.bytes" in said[0]
    topic.most = 1_000
    now += 1.0
    letters.missing([letter])
    assert letters.missing([letter]) == []


def put_off(hand_overs: HandOvers, *sizes: int) -> None:
    for size in sizes:
        waiting = HandOver([a_record(offset) for offset in range(size)], lambda: None)
        task = SentTask("persist_text", [], "", 10.0)
        task.seen = b"a try that failed"
        waiting.sent.append(task)
        hand_overs.under_way.append(waiting)


def test_what_waits_for_somebodys_rows_takes_no_room_in_the_window(hand_overs: HandOvers) -> None:
    put_off(hand_overs, *[1] * 40)
    assert (hand_overs.count, hand_overs.in_the_way()) == (40, 0)
    overdue(hand_overs, time.monotonic())
    assert hand_overs.in_the_way() == 1
    put_off(hand_overs, *[1] * hand_over.PUT_OFF_MOST)
    assert hand_overs.in_the_way() == 41, "no more than so many"


def test_an_outage_fills_the_window(hand_overs: HandOvers) -> None:
    put_off(hand_overs, *[hand_overs.settings.bridge_batch_max] * 17)
    assert hand_overs.in_the_way() == 16


@pytest.mark.parametrize("group", ["texts", "team search: tickets", "ä" * 300])
def test_a_bridge_s_name_in_its_group_is_one_that_kafka_takes(group: str) -> None:
    named = consumer.member_name(Settings(kafka_group_id=group, bridge_id="3"))
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,249}", named)
    assert named.endswith("-3")
