"""Sending dead letters to their topic again: their bytes from the table, the log or their copies, one by one and
acknowledged. Kafka's side of tasks/actions.py."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

import kafka_clients
from db.queries import Row
from replay.letters import (
    GONE,
    NOTHING_TO_SEND,
    Letter,
    Original,
    copies_among,
    first_found,
    from_log,
    from_rows,
    refusal,
    replay_headers,
)
from replay.reading import Turn, Unread, reader
from settings import Settings
from tasks.outages import Outage, reason

KAFKA_MS = 10_000
SEARCH_SECONDS = 2.0  # persist_text waits behind it, and the dead-letter topic may be as large as the log
LARGEST_RECORD = 64 * 1024 * 1024  # the broker knows its own limit; records are sent one by one

Key = tuple[str, int, int]


class Tried(NamedTuple):
    """What came of a try: how many records were sent, and why others were not. The copies of those `sought` may be in
    the part of the dead-letter topic that is `unread`."""

    sent: int
    problems: list[str]
    sought: list[Key]
    unread: list[Unread]


def key_of(row: Row) -> Key:
    return (row["topic"], row["partition"], row["offset"])


def send_again(config: Settings, rows: Sequence[Row], unread: Sequence[Unread] | None = None) -> Tried:
    """Sends the records of dead letters to their partitions. Those whose copies were not found in time are to be tried
    again with what is then `unread`. Raises Outage if Kafka is away."""
    try:
        return _send_again(config, rows, unread)
    except KafkaError as error:
        raise Outage(reason(error)) from error


def _send_again(config: Settings, rows: Sequence[Row], unread: Sequence[Unread] | None) -> Tried:
    by_letter, problems = sendable(config, rows)
    turn = Turn(config.dead_letter_topic, unread, SEARCH_SECONDS)
    sources = [
        lambda wanted: from_rows(by_letter.get, wanted),
        lambda wanted: in_log(config, wanted),
        lambda wanted: in_copies(config, turn, wanted),
    ]
    found = first_found(by_letter, sources if unread is None else sources[-1:])
    sent, failed, missing = send_all(config, by_letter, found)
    problems += failed
    if turn.unread:
        return Tried(sent, problems, [letter[:3] for letter in missing], turn.unread)
    problems += [f"{letter.name}: {GONE}" for letter in missing]
    return Tried(sent, problems, [], [])


def sendable(config: Settings, rows: Sequence[Row]) -> tuple[dict[Letter, Row], list[str]]:
    """The dead letters of these rows that can be sent again, and why the others cannot."""
    by_letter: dict[Letter, Row] = {}
    problems: list[str] = []
    for row in rows:
        letter = Letter(*key_of(row), row["timestamp"])
        why = refusal(row["state"], letter.topic, reads=config.kafka_topic)
        if why is None:
            by_letter[letter] = row
        else:
            problems.append(f"{letter.name}: {why}")
    return by_letter, problems


def send_all(
    config: Settings, letters: Iterable[Letter], found: Iterable[tuple[Letter, Original]]
) -> tuple[int, list[str], list[Letter]]:
    """Sends the letters that are found; returns how many, why others failed, and which were not found."""
    missing = set(letters)
    if not missing:
        return 0, [], []
    sent = 0
    problems: list[str] = []
    producer = connect_producer(config)
    try:
        for letter, original in found:
            missing.discard(letter)
            problem = send(producer, letter, original)
            if problem is None:
                sent += 1
            else:
                problems.append(f"{letter.name}: {problem}")
    finally:
        kafka_clients.close(producer, seconds=1)
    return sent, problems, sorted(missing)


def send(producer: KafkaProducer, letter: Letter, original: Original) -> str | None:
    """Sends one record and waits until Kafka has it; returns None, or why not. Raises KafkaError if Kafka is away."""
    if original.key is None and original.value is None:
        return NOTHING_TO_SEND
    try:
        producer.send(
            letter.topic,
            value=original.value,
            key=original.key,
            headers=replay_headers(letter, original.headers),
            partition=letter.partition,
        ).get(timeout=KAFKA_MS / 1000)
    except KafkaError as error:
        if error.retriable or kafka_clients.has_failed(producer):
            raise
        return str(error) or type(error).__name__
    except ValueError as error:  # the topic was made again with fewer partitions
        return str(error)
    return None


def connect_producer(config: Settings) -> KafkaProducer:
    return kafka_clients.connect(
        KafkaProducer,
        config,
        client_id="replay",
        acks="all",
        max_block_ms=KAFKA_MS,
        request_timeout_ms=KAFKA_MS // 2,
        delivery_timeout_ms=KAFKA_MS,
        bootstrap_timeout_ms=KAFKA_MS // 2,
        max_request_size=LARGEST_RECORD,
        metrics_enabled=False,
    )


def connect_consumer(config: Settings) -> KafkaConsumer:
    return reader(
        config,
        client_id="replay",
        request_timeout_ms=KAFKA_MS // 2,
        bootstrap_timeout_ms=KAFKA_MS // 2,
        metrics_enabled=False,
    )


def in_log(config: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    consumer = connect_consumer(config)
    try:
        yield from from_log(consumer, config.kafka_topic, letters)
    finally:
        consumer.close(timeout_ms=1_000)


def in_copies(config: Settings, turn: Turn, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    consumer = connect_consumer(config)
    try:
        yield from copies_among(turn.records(consumer), letters)
    finally:
        consumer.close(timeout_ms=1_000)
