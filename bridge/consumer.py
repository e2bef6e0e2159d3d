"""The bridge's loop: poll, decode, hand over, and commit last. It knows Kafka and the names of the tasks, no database.

Contract. Who commits: this loop alone, and only offsets whose records' effect is durable: in PostgreSQL, as
persist_text has said, or in the dead letters. What a crash does: everything not committed is read again; the tasks are
idempotent. What a loss in Redis does: a hand-over that nobody has finished within its lease is handed over again. What
an outage does: hand-overs stay under way, the window fills, and no more is read until they are done.
"""

import logging
import math
import re
import time
from collections.abc import Callable, Sequence
from queue import SimpleQueue

from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import FencedInstanceIdError, KafkaError, RetriableError
from kafka.structs import OffsetAndMetadata

import kafka_clients
from bridge.hand_over import HandOvers
from bridge.offsets import Offsets, Run
from bridge.positions import OUT_OF_PLACE, Positions, position_of
from bridge.steering import Steering
from kafka_clients import is_fenced, member_poll_ms
from portions import portions
from settings import Settings
from telemetry import heartbeat, numbers

log = logging.getLogger(__name__)

GATHERED_POLL_MS = 5  # while records wait for a hand-over to come back
BUSY_POLL_MS = 20  # while only results are waited for, which are looked at between two polls
FULL_WAIT_MS = 20  # while the window is full: no record is taken before a result arrives, and each look asks Redis
IDLE_POLL_MS = 200
COMMIT_SECONDS = 0.1  # between two commits while nothing is under way: soon, so that no lag is left
BUSY_COMMIT_SECONDS = 0.5  # a crash repeats that much more, but a commit costs both sides as much as many records
COMMIT_LOST_SECONDS = 15.0  # a commit without an answer for so long is sent again
IDLE_COMMIT_SECONDS = 1.0  # between two looks for positions behind the last record; see `commit_positions`
PAUSE_AFTER_SECONDS = 1.0  # of a full window before the partitions are paused, which throws away what was prefetched
# The last commit may take 2 more, leaving the group 1 and closing the producer 2: a local part has 9 (stack.part).
GRACE_SECONDS = 4.0
# How many hand-overs may be uncommitted, such as those behind an unfinished one of their partition: after a crash all
# of them are read again.
UNCOMMITTED_MOST = 2_000
# While so few hand-overs are under way, records go out at once, however few they are; beyond that, records gather until
# one comes back. So tasks grow with the load, and latency stays low without it.
EAGER = 2
# After each such hand-over there is a pause: this times the square root of its number of records, up to the maximum. A
# hand-over costs all parts together some 15 ms of CPU, however small it is, so records that come faster than that
# gather. A few a second do not wait at all.
PAUSE_SECONDS = 0.01
PAUSE_MOST_SECONDS = 0.025
# The last part of a pause is spent polling: the first poll after a sleep returns only what the one before requested.
LAST_POLLS_SECONDS = 0.005


def connect_consumer(settings: Settings) -> KafkaConsumer:
    """A consumer of the bridge's group. With a BRIDGE_ID it is a static member: after a crash it gets its partitions
    back at once, instead of after the session's time-out."""
    return kafka_clients.connect(
        KafkaConsumer,
        settings,
        client_id=f"bridge-{settings.bridge_id or 'dynamic'}",
        group_id=settings.kafka_group_id,
        group_instance_id=member_name(settings) if settings.bridge_id else None,
        auto_offset_reset="none",  # bridge.positions finds the place, and says so
        enable_auto_commit=False,
        isolation_level="read_committed",
        partition_assignment_strategy=(CooperativeStickyAssignor,),
        fetch_max_wait_ms=500,
        max_poll_records=settings.bridge_batch_max * settings.bridge_window,
        session_timeout_ms=45_000 if settings.bridge_id else 10_000,
        heartbeat_interval_ms=3_000,
        max_poll_interval_ms=300_000,
        request_timeout_ms=15_000,
        reconnect_backoff_max_ms=1_000,
        metadata_max_age_ms=30_000,
        metrics_enabled=False,  # nobody reads them, and each fetch would pay for them
    )


def member_name(settings: Settings) -> str:
    """The bridge's static member id. Kafka allows only the characters of a topic name in it, while a group id may hold
    any; the others become `_`."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", f"{settings.kafka_group_id}-{settings.bridge_id}")[-249:]


class Rebalances(ConsumerRebalanceListener):  # type: ignore[misc]
    """Carries rebalances from the client's own thread to the loop."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.consumer = consumer
        self.revoked: SimpleQueue[set[TopicPartition]] = SimpleQueue()
        self.assigned: SimpleQueue[set[TopicPartition]] = SimpleQueue()

    def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        self.revoked.put(set(revoked))

    def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        # An answer that came after its time-out stays there for the next who asks about the same partitions: of those
        # that were somebody else's meanwhile, it would be the place of an earlier time.
        self.consumer._coordinator._offset_fetch_futures.clear()
        self.assigned.put(set(assigned))
        log.info("partitions assigned: %s", ", ".join(f"{part.topic}/{part.partition}" for part in sorted(assigned)))


class Bridge:
    """One consumer of the group, with what it has under way."""

    def __init__(self, settings: Settings, consumer: KafkaConsumer, hand_overs: HandOvers) -> None:
        self.settings = settings
        self.consumer = consumer
        self.hand_overs = hand_overs
        self.offsets = Offsets()
        self.positions = Positions(consumer, settings.kafka_topic, self.forget)
        self.steering = Steering(hand_overs.app.backend.client, settings.kafka_group_id, self.positions)
        self.rebalances = Rebalances(consumer)
        self.gathered: list[ConsumerRecord] = []
        self.gathered_bytes = 0
        self.commit_sent: float | None = None
        self.last_commit = 0.0
        self.last_idle_commit = 0.0
        self.full_since: float | None = None
        self.pause_ends = 0.0
        self.stopping = False

    def run(self) -> None:
        """Runs until `stopping` is set; then finishes what is under way, commits it and leaves."""
        # Without the topic's metadata at hand the first assignment would be empty until the next refresh.
        self.consumer.partitions_for_topic(self.settings.kafka_topic)
        self.consumer.subscribe([self.settings.kafka_topic], listener=self.rebalances)
        while not self.stopping:
            heartbeat.beat()
            self.steering.look(self.is_at_rest)
            self.take_in()
            self.hand_over_gathered()
            self.collect()
            self.commit()
        self.finish()

    def take_in(self) -> None:
        """Polls for records if the window has room; while it has none, the consumer only stays in its group."""
        if self.has_no_room():
            self.wait_for_room()
            return
        if self.full_since is not None:
            self.full_since = None
            self.consumer.resume(*self.consumer.paused())
        time.sleep(max(0.0, self.pause_ends - time.monotonic() - LAST_POLLS_SECONDS))
        timeout = GATHERED_POLL_MS if self.gathered else BUSY_POLL_MS if self.hand_overs.count else IDLE_POLL_MS
        # One poll may fill several hand-overs: a poll costs the client more than the records that it brings.
        free = self.settings.bridge_window - self.hand_overs.in_the_way()
        self.gather(self.poll(timeout, max(1, free * self.settings.bridge_batch_max - len(self.gathered))))

    def is_at_rest(self) -> bool:
        """Whether all that was taken has had its effect, and is committed."""
        return not (self.gathered or self.hand_overs.count or self.offsets.committable())

    def has_no_room(self) -> bool:
        return (
            self.steering.paused
            or not self.steering.known
            or self.hand_overs.in_the_way() >= self.settings.bridge_window
            or self.gathered_bytes >= self.settings.bridge_batch_bytes
            or self.offsets.uncommitted >= UNCOMMITTED_MOST
        )

    def poll(self, timeout_ms: int, most: int | None = None) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Raises FencedInstanceIdError as soon as another bridge with this BRIDGE_ID has joined the group."""
        if self.settings.bridge_id and is_fenced(self.consumer):
            raise FencedInstanceIdError(member_name(self.settings))
        try:
            return dict(self.consumer.poll(timeout_ms=member_poll_ms(self.consumer, timeout_ms), max_records=most))
        except OUT_OF_PLACE as error:
            self.positions.mend(error)
            return {}

    def gather(self, polled: dict[TopicPartition, list[ConsumerRecord]]) -> None:
        """Takes in polled records, after dropping what was revoked: one poll may lose a partition and get it back."""
        self.forget_revoked()
        for records in polled.values():
            self.gathered += records
            numbers.consumed(len(records))
            self.gathered_bytes += sum(sizes(records))
        self.look_after_positions()

    def look_after_positions(self) -> None:
        """Notices a topic that was made again, now or before these partitions came to this consumer."""
        while not self.rebalances.assigned.empty():
            self.positions.unchecked |= self.rebalances.assigned.get()
        self.positions.look()
        if self.positions.unchecked:
            try:
                self.positions.check()
            except RetriableError as error:
                log.warning("committed offsets not known yet: %s", error)

    def wait_for_room(self) -> None:
        """Waits for a hand-over to come back.

        When that takes long, the partitions are paused and polled, because a member that does not poll is put out of
        its group. Not sooner, because pausing throws away what was prefetched.
        """
        now = time.monotonic()
        self.full_since = self.full_since or now
        if now - self.full_since > PAUSE_AFTER_SECONDS:
            self.consumer.pause(*self.consumer.assignment())
            stray = self.poll(0)
            # Of a partition that was assigned in this very call.
            if self.steering.paused or not self.steering.known:
                for part, records in stray.items():
                    self.consumer.seek(part, records[0].offset)
                stray = {}
            self.gather(stray)
            self.full_since = now - PAUSE_AFTER_SECONDS / 2
        time.sleep(FULL_WAIT_MS / 1000)

    def forget_revoked(self) -> None:
        while not self.rebalances.revoked.empty():
            gone = self.rebalances.revoked.get()
            log.info("partitions revoked: %s", ", ".join(f"{part.topic}/{part.partition}" for part in sorted(gone)))
            self.forget(gone)

    def forget(self, parts: set[TopicPartition]) -> None:
        """Drops what is known and gathered of partitions that somebody else reads now, or that are read anew."""
        self.offsets.forget(parts)
        self.gathered = [record for record in self.gathered if (record.topic, record.partition) not in parts]
        self.gathered_bytes = sum(sizes(self.gathered))

    def hand_over_gathered(self) -> None:
        """Hands over what was gathered, where that fills a hand-over, or few are under way and the pause is over."""
        if not self.gathered:
            return
        under_way = self.hand_overs.in_the_way()
        busy = under_way - self.hand_overs.waiting_for_letters()
        if not self.is_full():
            now = time.monotonic()
            has_room = busy < self.eager and under_way < max(self.eager, self.settings.bridge_window)
            if not has_room or now < self.pause_ends:
                return
            self.pause_ends = now + min(PAUSE_SECONDS * math.sqrt(len(self.gathered)), PAUSE_MOST_SECONDS)
        for batch in self.take_batches(under_way, busy):
            self.hand_over(batch)

    @property
    def eager(self) -> int:
        """While fewer hand-overs than this are under way, a small one goes out at once."""
        return max(EAGER, self.settings.persist_workers + 1)

    def is_full(self) -> bool:
        """Whether what was gathered fills a hand-over."""
        return (
            len(self.gathered) >= self.settings.bridge_batch_max
            or self.gathered_bytes >= self.settings.bridge_batch_bytes
        )

    def take_batches(self, under_way: int, busy: int) -> list[list[ConsumerRecord]]:
        """Takes as many batches out of what was gathered as the window has room for, but one at least."""
        cut = batches(self.gathered, self.settings.bridge_batch_max, self.settings.bridge_batch_bytes)
        room = max(1, self.settings.bridge_window - under_way)  # one poll may bring more than the window
        if len(cut) > 1 and busy + len(cut) > self.eager:
            room = min(room, len(cut) - 1)  # the last one may still grow
        self.gathered = [record for batch in cut[room:] for record in batch]
        self.gathered_bytes = sum(sizes(self.gathered))
        return cut[:room]

    def hand_over(self, batch: list[ConsumerRecord]) -> None:
        last = {(record.topic, record.partition): record for record in batch}
        runs = [
            self.offsets.begin(TopicPartition(*part), record.offset + 1, record.leader_epoch)
            for part, record in last.items()
        ]
        self.hand_overs.begin(batch, on_finished(self.offsets, runs))

    def collect(self) -> None:
        self.hand_overs.collect()
        self.hand_overs.renew()

    def commit(self) -> None:
        """Commits what has become committable, one commit at a time."""
        now = time.monotonic()
        if self.positions.unchecked or (self.commit_sent is not None and now - self.commit_sent < COMMIT_LOST_SECONDS):
            return
        if now - self.last_commit < (BUSY_COMMIT_SECONDS if self.hand_overs.count else COMMIT_SECONDS):
            return
        if not self.hand_overs.count and not self.gathered and now - self.last_idle_commit > IDLE_COMMIT_SECONDS:
            self.last_idle_commit = now
            self.commit_positions()
        offsets = self.owned(self.offsets.committable())
        if not offsets:
            return
        self.commit_sent = self.last_commit = now

        def answered(_sent: object, response: object) -> None:
            self.commit_sent = None
            if isinstance(response, Exception):
                log.warning("commit refused, will be tried again: %s", response)
            else:
                self.offsets.committed(offsets)

        self.consumer.commit_async(self.as_kafka(offsets), callback=answered)

    def commit_positions(self) -> None:
        """Lets the positions themselves be committed, so that transaction markers leave no lag. Only for a moment at
        which nothing is under way."""
        for part in self.consumer.assignment():
            try:
                position = self.consumer.position(part, timeout_ms=100)
            except OUT_OF_PLACE as error:  # raised only once: the next poll would not raise it again
                self.positions.mend(error)
                return
            except (KafkaError, KeyError):  # the partition may go meanwhile
                continue
            known = position_of(self.consumer, part)
            if position is not None and position == known.offset:
                self.offsets.skip_to(part, position, known.leader_epoch)

    def as_kafka(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, OffsetAndMetadata]:
        """Offsets as they are committed: with the id of the topic that they belong to, and the epoch that tells whether
        their record was lost since."""
        return {
            part: OffsetAndMetadata(offset, self.positions.topic_id, self.offsets.epoch(part))
            for part, offset in offsets.items()
        }

    def owned(self, offsets: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        assigned = self.consumer.assignment()
        return {part: offset for part, offset in offsets.items() if part in assigned}

    def finish(self) -> None:
        """Waits a little for what is under way, commits what is done, and leaves the group."""
        deadline = time.monotonic() + GRACE_SECONDS
        while self.hand_overs.count and time.monotonic() < deadline:
            self.collect()
            time.sleep(GATHERED_POLL_MS / 1000)
        self.forget_revoked()
        offsets = self.owned(self.offsets.committable())
        if offsets and not self.positions.unchecked:
            try:
                self.consumer.commit(self.as_kafka(offsets), timeout_ms=2_000)
            except KafkaError as error:
                log.warning("last commit refused, these records will be read again: %s", error)
        log.info("stopped, %d hand-overs left to the next start", self.hand_overs.count)
        self.consumer.close(autocommit=False, timeout_ms=1_000)


def sizes(records: Sequence[ConsumerRecord]) -> list[int]:
    """The bytes of each record, headers included."""
    return [
        len(record.value or b"") + len(record.key or b"") + (headers_size(record.headers) if record.headers else 0)
        for record in records
    ]


def headers_size(headers: Sequence[tuple[str, bytes | None]]) -> int:
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


def batches(records: Sequence[ConsumerRecord], most: int, most_bytes: int) -> list[list[ConsumerRecord]]:
    """Cuts records into hand-overs of at most `most` records and, unless it is a single one, `most_bytes` bytes."""
    return [list(records[portion]) for portion in portions(([1] * len(records), most), (sizes(records), most_bytes))]


def on_finished(offsets: Offsets, runs: Sequence[Run]) -> Callable[[], None]:
    def finish() -> None:
        for run in runs:
            offsets.finish(run)

    return finish
