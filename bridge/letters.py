"""The dead letters under way to their topic: each is sent until Kafka has confirmed it.

Neither a Kafka that is away nor a topic that somebody has deleted holds up the bridge's loop: what is refused is tried
again a second later, and the topic is made again in a thread. A letter that is too large for the topic is cut and sent
again until it is taken.
"""

import logging
import threading
import time
from collections.abc import Sequence

from kafka import KafkaProducer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import BrokerResponseError, KafkaError
from kafka.producer.future import FutureRecordMetadata

from bridge import dead_letters, topics
from bridge.message import BadRecord
from kafka_clients import TOO_LARGE
from settings import Settings

log = logging.getLogger(__name__)

AGAIN_SECONDS = 1.0
# So much later than others that were in the same batch, which Kafka refuses for one record in it: these go without it.
BEHIND_SECONDS = 0.5
LATE_SECONDS = 5.0
TOO_SMALL_SECONDS = 60.0  # between two lines about a topic that takes no letter at all


class SentLetter:
    """A record on its way to the dead-letter topic; `future` is None while the client has not taken it."""

    def __init__(self, record: ConsumerRecord, error: BadRecord) -> None:
        self.record = record
        self.error = error
        self.future: FutureRecordMetadata | None = None
        self.next_try = 0.0
        self.late = 0.0  # when to look whether its topic is there
        self.most = dead_letters.RECORD_BYTES  # bytes, to which it is cut
        self.problem: Exception | None = None  # that the client has raised

    @property
    def has_arrived(self) -> bool:
        return self.future is not None and bool(self.future.succeeded())

    @property
    def is_refused(self) -> bool:
        return self.future is None or bool(self.future.failed())

    @property
    def due(self) -> float:
        """When to send it again, once it is refused."""
        error = None if self.future is None else self.future.exception
        itself = isinstance(error, BrokerResponseError) and not self.is_too_large  # a batch too large is cut in two
        return self.next_try + (BEHIND_SECONDS if itself else 0.0)

    @property
    def is_too_large(self) -> bool:
        return isinstance(self.problem if self.future is None else self.future.exception, TOO_LARGE)


class Letters:
    """Sends dead letters. Not thread-safe: the bridge's loop owns it."""

    def __init__(self, settings: Settings, producer: KafkaProducer) -> None:
        self.settings = settings
        self.producer = producer
        self.away_until = 0.0
        self.topic_maker: threading.Thread | None = None
        self.next_too_small = 0.0

    def send(self, record: ConsumerRecord, error: BadRecord) -> SentLetter:
        letter = SentLetter(record, error)
        self.produce(letter)
        return letter

    def missing(self, letters: Sequence[SentLetter]) -> list[SentLetter]:
        """The letters that Kafka has not confirmed. Those that were refused are sent again when their time has come."""
        left = [letter for letter in letters if not letter.has_arrived]
        now = time.monotonic()
        for letter in left:
            if not letter.is_refused:
                if now >= letter.late:  # a producer that knew the topic tries for a minute
                    letter.late = now + LATE_SECONDS
                    self.make_topic_meanwhile()
            elif letter.is_too_large and letter.most:
                self.send_less(letter)
            elif now >= letter.due:
                if letter.is_too_large:
                    self.say_too_small()
                elif letter.future is not None:
                    log.warning("dead letter not taken by Kafka, sent again: %s", letter.future.exception)
                self.produce(letter)
        return left

    def send_less(self, letter: SentLetter) -> None:
        """Sends a letter that is too large for the topic again at once, cut to half: uncut it would never be taken."""
        letter.most = dead_letters.less(letter.record, letter.most)
        log.warning(
            "the dead letter of %s/%d, offset %d, is too large for %s: sent again, cut to %s",
            letter.record.topic,
            letter.record.partition,
            letter.record.offset,
            self.settings.dead_letter_topic,
            f"{letter.most} bytes" if letter.most else "its dead-letter-* headers",
        )
        self.produce(letter)

    def say_too_small(self) -> None:
        now = time.monotonic()
        if now >= self.next_too_small:
            self.next_too_small = now + TOO_SMALL_SECONDS
            log.error(
                "%s takes no dead letter, not even its dead-letter-* headers alone; they are sent again until it does: "
                "raise its max.message.bytes, or where it has none its brokers' message.max.bytes",
                self.settings.dead_letter_topic,
            )

    def produce(self, letter: SentLetter) -> None:
        now = time.monotonic()
        letter.future = letter.problem = None
        letter.next_try = max(self.away_until, now + AGAIN_SECONDS)
        letter.late = now + LATE_SECONDS
        if now < self.away_until:  # one try for all: each may block as long as a time-out
            return
        try:
            letter.future = dead_letters.send(
                self.producer, self.settings.dead_letter_topic, letter.record, letter.error, letter.most
            )
        except TOO_LARGE as problem:
            letter.problem = problem
        except (KafkaError, ValueError) as problem:  # ValueError: the topic's partitions went away meanwhile
            log.warning("dead letters not taken by Kafka, will be sent again: %s", problem)
            self.make_topic_meanwhile()
            self.away_until = letter.next_try = time.monotonic() + AGAIN_SECONDS

    def make_topic_meanwhile(self) -> None:
        """Creates the topic again in case somebody has deleted it, or the window would fill with hand-overs that wait
        for it. In a thread, because a silent Kafka would hold up the loop for many seconds."""
        if self.topic_maker is None or not self.topic_maker.is_alive():
            self.topic_maker = threading.Thread(target=self.make_topic, name="make topic", daemon=True)
            self.topic_maker.start()

    def make_topic(self) -> None:
        topic = self.settings.dead_letter_topic
        try:
            if topics.create(self.settings, only=topic):
                log.warning("%s was gone, and is created again", topic)
        except (KafkaError, OSError) as problem:
            log.warning("whether %s is there is not known: %s", topic, problem)
