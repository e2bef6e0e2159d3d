"""Sending records: what is sent for a line, and many of them in flight at a time, with a bound and a count.

Values go out as the bytes that came in. Nothing is printed here.
"""

import json
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import BinaryIO, NamedTuple, NoReturn

from kafka import KafkaProducer
from kafka.errors import BrokerResponseError, KafkaError, MessageSizeTooLargeError, RetriableError
from kafka.producer.future import FutureRecordMetadata, RecordMetadata

import kafka_clients
from clients.terminal import CommandFailed

Headers = Sequence[tuple[str, bytes]]

# Records handed to the producer and not yet acknowledged. Enough to keep it busy, and bounded, as its own queue is not.
IN_FLIGHT = 20_000
IN_FLIGHT_BYTES = 32 * 1024 * 1024
FUTURE_SECONDS = 60.0  # longer than any delivery time-out, which is what really ends the wait

REASONS_KEPT = 5


class NotJson(CommandFailed):
    """The value is not JSON; the message says where it stops being JSON."""


class Line(NamedTuple):
    """A record as a line gives it: number of the line, value, key, or what is wrong with it."""

    number: int
    value: bytes
    key: bytes | None = None
    wrong: str | None = None


class Unsent(NamedTuple):
    """A record that Kafka does not have: the number under which it was sent, and the reason."""

    number: int
    reason: str


def refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


# Whole numbers are read as floats, which may have any length; nobody needs their value here.
JSON = json.JSONDecoder(parse_int=float, parse_constant=refuse)


def key_in(value: bytes) -> bytes | None:
    """The key of a record with this JSON value: its "id" if that is a string, else None. Raises NotJson."""
    try:
        document = JSON.decode(value.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise NotJson(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise NotJson("nested too deeply") from None
    except ValueError as error:
        raise NotJson(f"not JSON: {error}") from None
    identity = document.get("id") if isinstance(document, dict) else None
    if not isinstance(identity, str):
        return None
    try:
        return identity.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair: a dead letter, which needs no key
        return None


def send_one(
    producer: KafkaProducer, topic: str, key: bytes | None, value: bytes | None, headers: Headers
) -> RecordMetadata:
    """Sends a record and waits until Kafka has it. Raises KafkaError."""
    future = producer.send(topic, value=value, key=key, headers=list(headers))
    return future.get(timeout=FUTURE_SECONDS)


class Sending:
    """Sends records one after the other, many in flight; `acknowledged` of them are in Kafka, `failed` are not.

    A record that Kafka refuses counts as failed and the next ones go on. With `only_keyed` one without a key is not
    sent, because Kafka would refuse all that are in one batch with it. Raises KafkaError when Kafka does not answer any
    more. Call `finish` at the end.
    """

    def __init__(self, producer: KafkaProducer, topic: str, *, only_keyed: bool = False) -> None:
        self.producer = producer
        self.topic = topic
        self.only_keyed = only_keyed
        self.acknowledged = 0
        self.failed = 0
        self.reasons: list[Unsent] = []
        self.waiting: deque[tuple[int, int, FutureRecordMetadata]] = deque()
        self.waiting_bytes = 0
        # By partition, the first offset that one of these records got, and the one behind the last.
        self.begins: dict[int, int] = {}
        self.ends: dict[int, int] = {}

    def send(
        self,
        number: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        *,
        partition: int | None = None,
    ) -> None:
        """Sends a record; a failure is reported under `number`."""
        if key is None and self.only_keyed:
            self.fail(number, f"has no key, which {self.topic} needs, as it is compacted")
            return
        try:
            future = self.producer.send(self.topic, value=value, key=key, headers=list(headers), partition=partition)
        except MessageSizeTooLargeError:
            self.fail(number, too_large(self.producer.config["max_request_size"]))
            return
        except ValueError as error:  # about the partition: the topic was made again with fewer
            self.fail(number, str(error))
            return
        size = len(value or b"")
        self.waiting.append((number, size, future))
        self.waiting_bytes += size
        while len(self.waiting) > IN_FLIGHT or self.waiting_bytes > IN_FLIGHT_BYTES:
            self.settle()
        self.settle_done()

    def settle_done(self) -> None:
        """Counts what has been acknowledged by now."""
        while self.waiting and self.waiting[0][2].is_done:
            self.settle()

    def finish(self) -> None:
        """Waits for everything that is in flight."""
        while self.waiting:
            self.settle()

    def settle(self) -> None:
        number, size, future = self.waiting[0]
        sent: RecordMetadata | None = None
        reason = ""
        try:
            sent = future.get(timeout=FUTURE_SECONDS)
        except KafkaError as error:
            # kafka-python gives a plain KafkaError to what was in one batch with a refused record, and to whatever is
            # sent by a producer that has failed.
            beside = type(error) is KafkaError and not kafka_clients.has_failed(self.producer)
            if isinstance(error, RetriableError) or not (isinstance(error, BrokerResponseError) or beside):
                raise
            reason = str(error)
        self.waiting.popleft()  # not sooner: Ctrl-C mostly comes while one is waited for, which is then on its way
        self.waiting_bytes -= size
        if sent is None:
            self.fail(number, reason)
            return
        self.acknowledged += 1
        self.begins.setdefault(sent.partition, sent.offset)
        self.ends[sent.partition] = sent.offset + 1

    def fail(self, number: int, reason: str) -> None:
        self.failed += 1
        if len(self.reasons) < REASONS_KEPT:
            self.reasons.append(Unsent(number, reason))


def records(lines: BinaryIO, *, raw: bool, largest: int) -> Iterator[Line]:
    """The record of each line; blank lines are left out. With `raw` every line is one, whatever it holds. Of a longer
    line no more than `largest` bytes are held."""
    for number in count(1):
        line = lines.readline(largest + 1)
        if not line:
            return
        value = line.removesuffix(b"\n")
        if len(value) > largest:
            while line and not line.endswith(b"\n"):
                line = lines.readline(largest + 1)
            yield Line(number, value, wrong=too_large(largest))
        elif raw:
            yield Line(number, value)
        elif value.strip():
            try:
                yield Line(number, value, key_in(value))
            except NotJson as error:
                yield Line(number, value, wrong=str(error))


def too_large(largest: int) -> str:
    return f"larger than the topic takes, which is {largest:,} bytes (its max.message.bytes)"
