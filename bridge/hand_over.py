"""Hand-overs: records that were given to the tasks and whose effect is not yet known to be durable.

A hand-over is finished when persist_text has said that each record is stored or rejected, and each dead letter is in
its topic and in its table. Until then its lease is watched; a lease that has run out means that nobody is at it (the
message was lost, or its worker died), and the same tasks are sent again. Memory is bounded by the bridge's window.
"""

import logging
import random
import time
import uuid
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

from celery import Celery, states
from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord

import task_names
from bridge import dead_letters
from bridge.letters import Letters, SentLetter
from bridge.message import BadRecord, Row, decode, decode_plain
from letter_headers import named
from records import Record
from settings import Settings
from tasks.broker import BROKER_ERRORS, length_at_priority, said_of
from telemetry import logs

log = logging.getLogger(__name__)

UNSENT_SECONDS = 0.5  # until the next try to send while the broker is away; times 1 to 2, so that bridges spread out
LEASE_GROWTH = 2.0  # each time a task is sent again, so that a slow one ends before its next copy
LEASE_MOST_SECONDS = 60.0  # the longest lease; in a long queue, also how long a task may wait before a copy is sent
QUEUE_FACTOR = 4  # windows in the queue: with more nobody works on it, and copies would only make it longer
OVERTAKEN_SECONDS = 2.0  # a task that others have overtaken may be in a slow worker's hand: it has so long to finish
OVERTAKEN_BY = 4  # later tasks for each persist worker, and for two more
LOST_SECONDS = 6.0  # ten times what a task takes; with an empty queue it did not wait either, so it is most likely lost
LOOK_SECONDS = 0.5  # between two looks whether the queue is empty
DROP_SECONDS = 0.5  # between two deletions of results that were read
FINISHED_KEPT = 256  # OVERTAKEN_BY of them for each of 62 persist workers, and for two more
PUT_OFF_MOST = 100  # at most so many are exempt from the window; each makes a worker look every two seconds
BACK_SECONDS = 5.0  # without an error, after which the broker is said to be back

UNSENT, UNKNOWN = "tasks will be sent again", "results unknown"


class SentTask:
    """A task that was sent and is not known to be finished; it keeps its arguments, to be sent again."""

    def __init__(self, name: str, argument: list[Any], about: str, lease: float) -> None:
        self.id = str(uuid.uuid4())
        self.name = name
        self.argument = argument
        self.about = about
        self.lease = lease
        self.due = 0.0
        self.published: float | None = None
        self.order = 0
        self.sent_again = False
        self.seen: bytes | None = None

    def take_another_id(self) -> None:
        """What was done with the old one is done: workers discard whatever comes under an id that was revoked."""
        self.id = str(uuid.uuid4())
        self.published = self.seen = None
        self.sent_again = False


class HandOver:
    """Records that were handed over together, with what is still missing until all of them are dealt with."""

    def __init__(self, records: Sequence[ConsumerRecord], finished: Callable[[], None]) -> None:
        self.records = records
        self.finished = finished
        self.good: Sequence[ConsumerRecord] = []
        self.sent: list[SentTask] = []
        self.letters: list[SentLetter] = []

    @property
    def is_put_off(self) -> bool:
        """Whether a worker has tried all that is left of it and will try again, such as for a row that is locked."""
        return bool(self.sent) and not self.letters and all(task.seen is not None for task in self.sent)


def is_late(task: SentTask, now: float, seconds: float) -> bool:
    """Whether a task was sent at least `seconds` ago, only once, and no worker has reported a try since."""
    if task.published is None or task.sent_again or task.seen is not None:
        return False
    return now - task.published >= seconds


class HandOvers:
    """All hand-overs under way. Not thread-safe: the bridge's loop owns it."""

    def __init__(self, settings: Settings, app: Celery, producer: KafkaProducer) -> None:
        self.settings = settings
        self.app = app
        self.letters = Letters(settings, producer)
        self.under_way: list[HandOver] = []
        self.broker_away_until = 0.0
        self.away: dict[str, float] = {}  # what was said to fail without the broker, and when it last did
        self.published = 0
        self.looked = float("-inf")  # when the queue was last asked whether it is empty
        self.taken: list[str] = []  # tasks whose final results were read and are still there
        self.next_drop = 0.0
        self.finished: deque[int] = deque(maxlen=FINISHED_KEPT)  # the orders of the tasks that finished last

    @property
    def count(self) -> int:
        return len(self.under_way)

    def in_the_way(self) -> int:
        """How many hand-overs count against the window. Those that a worker has put off do not count while together
        they hold at most BRIDGE_BATCH_MAX records, so that a few locked rows do not stop the intake. Beyond that they
        count, so that an outage, which puts everything off, does stop it."""
        put_off = [hand_over for hand_over in self.under_way if hand_over.is_put_off]
        records = list(accumulate(len(hand_over.records) for hand_over in put_off[:PUT_OFF_MOST]))
        return self.count - bisect_right(records, self.settings.bridge_batch_max)

    def waiting_for_letters(self) -> int:
        """How many hand-overs in the way keep no worker busy: they wait only for letters that Kafka has not taken,
        perhaps for long, and for what a worker has put off."""
        return sum(bool(each.letters) and all(task.seen is not None for task in each.sent) for each in self.under_way)

    def begin(self, records: Sequence[ConsumerRecord], finished: Callable[[], None]) -> None:
        """Decodes records and hands them over; `finished` is called once, when all of them are durable."""
        hand_over = HandOver(records, finished)
        batch, bad = self.decoded(records)
        if batch:
            buried = {id(record) for record, _ in bad}
            hand_over.good = [record for record in records if id(record) not in buried] if bad else records
            self.send(hand_over, task_names.PERSIST_TEXT, batch, f"({len(batch)} records)")
            handed = map(Record._make, batch)
            logs.each(log, "handed over", handed, self.settings.kafka_topic, task_id=hand_over.sent[-1].id)
        if bad:
            self.bury(hand_over, bad)
        self.under_way.append(hand_over)

    def decoded(self, records: Sequence[ConsumerRecord]) -> tuple[list[Row], list[tuple[ConsumerRecord, BadRecord]]]:
        """The rows of the good records, and the bad ones with what is wrong with them."""
        rows: list[Row] = []
        bad: list[tuple[ConsumerRecord, BadRecord]] = []
        most = self.settings.max_text_chars
        for record in records:
            is_first = not record.headers or named(record.headers) is None
            if is_first and record.value and (row := decode_plain(record, record.value, most)) is not None:
                rows.append(row)
                continue
            at = dead_letters.coordinates(record)
            try:
                rows.append(decode(at, record.key, record.value, record.headers, most)[:])
            except BadRecord as error:
                bad.append((record, error))
        return rows, bad

    def send(self, hand_over: HandOver, name: str, argument: list[Any], about: str) -> None:
        task = SentTask(name, argument, about, self.settings.bridge_lease_seconds)
        hand_over.sent.append(task)
        self.publish(task)

    def publish(self, task: SentTask) -> bool:
        """Sends a task, or puts it off while the broker is away; returns whether it was sent."""
        now = time.monotonic()
        if now < self.broker_away_until:  # one try for all: each may take as long as a time-out
            task.due = self.broker_away_until
            return False
        try:
            self.app.send_task(task.name, args=[task.argument], task_id=task.id, argsrepr=task.about, kwargsrepr="{}")
            task.published = time.monotonic()
            task.due = task.published + task.lease
            self.published += 1
            task.order = self.published
            self.say_back(UNSENT)
            return True
        except BROKER_ERRORS as error:
            self.say_away(UNSENT, said_of("persist", error))
            self.broker_away_until = task.due = time.monotonic() + UNSENT_SECONDS * random.uniform(1, 2)
            return False

    def say_away(self, what: str, error: Exception | str) -> None:
        """Logs an outage once, when it begins: there is a try a second, or more."""
        if what not in self.away:
            log.warning("broker away, %s: %s", what, error)
        self.away[what] = time.monotonic()

    def say_back(self, what: str) -> None:
        """Logs the end of an outage once it lasts: a full Redis takes a task now and then."""
        if what in self.away and time.monotonic() - self.away[what] > BACK_SECONDS:
            del self.away[what]
            log.info("broker back, no more of: %s", what)

    def send_again(self, task: SentTask, why: str) -> None:
        """Sends a task again before its lease has run out, which is done at most once."""
        task.sent_again = self.publish(task)
        if task.sent_again:
            log.warning("%s %s %s, sent again", task.name, task.about, why)

    def bury(self, hand_over: HandOver, bad: Sequence[tuple[ConsumerRecord, BadRecord]]) -> None:
        """Sends records to the dead letters, topic and table."""
        logs.dead_letters(log, bad)
        notes = []
        for record, error in bad:
            hand_over.letters.append(self.letters.send(record, error))
            notes.append(dead_letters.note(record, error.reason, error.detail))
        self.send(hand_over, task_names.RECORD_DEAD_LETTERS, notes, f"({len(notes)} dead letters)")

    def collect(self) -> None:
        """Looks at the results of all tasks under way, in one read, and finishes the hand-overs that are complete."""
        if self.taken and time.monotonic() >= self.next_drop:
            self.drop_results()
        if not self.under_way:
            return
        waiting = [(hand_over, task) for hand_over in self.under_way for task in hand_over.sent]
        if waiting:
            keys = [self.app.backend.get_key_for_task(task.id) for _, task in waiting]
            try:
                answers = self.app.backend.mget(keys)
                self.say_back(UNKNOWN)
            except BROKER_ERRORS as error:
                self.say_away(UNKNOWN, error)
                self.looked = time.monotonic()  # results may be there: no task counts as lost before they are read
                answers = [None] * len(keys)
            for (hand_over, task), answer in zip(waiting, answers, strict=True):
                if answer is not None and self.take(hand_over, task, answer):
                    self.taken.append(task.id)
        for hand_over in self.under_way:
            hand_over.letters = self.letters.missing(hand_over.letters)
        complete = [hand_over for hand_over in self.under_way if not hand_over.sent and not hand_over.letters]
        for hand_over in complete:
            self.under_way.remove(hand_over)
            hand_over.finished()

    def take(self, hand_over: HandOver, task: SentTask, answer: bytes) -> bool:
        """Takes a task's result; True when it is the final one."""
        result = self.app.backend.decode_result(answer)
        if result["status"] == states.SUCCESS:
            hand_over.sent.remove(task)
            self.finished.append(task.order)
            if task.name == task_names.PERSIST_TEXT:
                self.bury_rejected(hand_over, result["result"]["rejected"])
            return True
        if result["status"] == states.REVOKED:
            revoked = task.id
            task.take_another_id()
            log.warning("%s %s was revoked as %s, sent again as %s", task.name, task.about, revoked, task.id)
            self.publish(task)
            return False
        if answer != task.seen:  # somebody is at it: a try that failed, with another to come
            task.seen = answer
            task.due = time.monotonic() + task.lease
            if result["status"] == states.FAILURE:
                log.error("%s failed and will be sent again: %s", task.name, result["result"])
        return False

    def bury_rejected(self, hand_over: HandOver, rejected: Sequence[tuple[int, str]]) -> None:
        if rejected:
            self.bury(hand_over, [(hand_over.good[place], BadRecord("rejected", detail)) for place, detail in rejected])

    def renew(self) -> None:
        """Sends again what was overtaken, what is in no queue and in nobody's hand any more, and what nobody has
        finished within its lease, each time with a longer one.

        A lease that has run out counts only while the queue is short: in a long one the task most likely still waits,
        and copies would only make it longer. There it is sent again after LEASE_MOST_SECONDS, in case it was lost,
        unless the queue is out of all proportion because nobody works on it.
        """
        now = time.monotonic()
        sent = [task for hand_over in self.under_way for task in hand_over.sent]
        for task in sent:
            if self.is_overtaken(task, now):
                self.send_again(task, "was overtaken by those sent after it")
        for task in self.lost(sent, now):
            self.send_again(task, "is not queued any more and not done")
        due = [task for task in sent if now > task.due]
        if not due:
            return
        try:
            waiting = length_at_priority("persist", 0)
        except BROKER_ERRORS:
            waiting = 0  # as in an empty queue: `publish` learns whether Redis is still away, and puts the task off
        for task in due:
            patience = LEASE_MOST_SECONDS if waiting < QUEUE_FACTOR * self.settings.bridge_window else float("inf")
            before = task.published
            if before is not None and waiting >= self.settings.bridge_window and now - before < patience:
                task.due = now + task.lease
            elif self.publish(task) and before is not None:
                log.warning("%s %s not finished within its lease, sent again", task.name, task.about)
                longer = min(task.lease * LEASE_GROWTH, LEASE_MOST_SECONDS) - task.lease
                task.lease += longer
                task.due += longer

    def is_overtaken(self, task: SentTask, now: float) -> bool:
        """Whether so many tasks that were sent later are finished that this one must be lost: queues keep the order.

        A task that has reported a try does not count: it went to the end of the queue. One that was sent again before
        does not either: it most likely waits for rows that somebody else has locked, and each copy would keep another
        worker waiting.
        """
        if not is_late(task, now, OVERTAKEN_SECONDS):
            return False
        return sum(order > task.order for order in self.finished) >= OVERTAKEN_BY * (self.settings.persist_workers + 2)

    def lost(self, sent: Sequence[SentTask], now: float) -> list[SentTask]:
        """If the queue is empty, the tasks that were sent so long ago that a worker would have finished them. If a
        worker was only held up, the copy finds its work done."""
        late = [task for task in sent if is_late(task, now, LOST_SECONDS)]
        if not late or now - self.looked < LOOK_SECONDS:
            return []
        self.looked = now
        try:
            return [] if length_at_priority("persist", 0) else late
        except BROKER_ERRORS:
            return []

    def drop_results(self) -> None:
        """Deletes results that were read, many at once; those that are left behind expire (result_expires)."""
        keys = [self.app.backend.get_key_for_task(task_id) for task_id in self.taken]
        self.taken.clear()
        self.next_drop = time.monotonic() + DROP_SECONDS
        try:
            self.app.backend.client.delete(*keys)
        except BROKER_ERRORS as error:
            log.info("results not dropped, they will expire: %s", error)
