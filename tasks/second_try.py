"""Sending dead letters to their topic again: their bytes from the table, the log or their copies, one by one and
acknowledged. Kafka's side of tasks/actions.py."""

from collections.abc import Iterator, Sequence

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from db.queries import Row
from replay.letters import Letter, Original, copies, first_found, originals, replay_headers, whole
from settings import Settings

KAFKA_MS = 10_000
LARGEST_RECORD = 64 * 1024 * 1024  # the broker knows its own limit; records are sent one by one

Key = tuple[str, int, int]


def name(row: Row) -> Key:
    return (row["topic"], row["partition"], row["offset"])


def send_again(config: Settings, rows: Sequence[Row]) -> tuple[int, list[str]]:
    """Sends the records of dead letters to their partitions; how many, and why the others were not. Raises KafkaError
    where Kafka is away."""
    problems: list[str] = []
    by_letter: dict[Letter, Row] = {}
    for row in rows:
        letter = Letter(*name(row), row["timestamp"])
        if row["state"] != "open":
            problems.append(f"{letter.name}: it is {row['state']} already")
        elif letter.topic != config.kafka_topic:
            problems.append(f"{letter.name}: the bridge reads {config.kafka_topic}")
        else:
            by_letter[letter] = row
    if not by_letter:
        return 0, problems
    sources = [
        lambda wanted: from_rows(by_letter, wanted),
        lambda wanted: from_log(config, wanted),
        lambda wanted: from_copies(config, wanted),
    ]
    sent = 0
    missing = set(by_letter)
    producer = connect_producer(config)
    try:
        for letter, original in first_found(by_letter, sources):
            missing.discard(letter)
            problem = send(producer, letter, original)
            if problem is None:
                sent += 1
            else:
                problems.append(f"{letter.name}: {problem}")
    finally:
        producer.close(timeout=1)
    problems += [f"{letter.name}: nothing has it whole any more" for letter in sorted(missing)]
    return sent, problems


def send(producer: KafkaProducer, letter: Letter, original: Original) -> str | None:
    """Sends one record and waits until Kafka has it; else why not. Raises KafkaError where Kafka is away."""
    if original.key is None and original.value is None:
        return "it has neither key nor value: it can only be dropped"
    try:
        producer.send(
            letter.topic,
            value=original.value,
            key=original.key,
            headers=replay_headers(letter, original.headers),
            partition=letter.partition,
        ).get(timeout=KAFKA_MS / 1000)
    except KafkaError as error:
        if error.retriable:
            raise
        return str(error) or type(error).__name__
    except (AssertionError, ValueError) as error:  # the topic was made again with fewer partitions
        return str(error)
    return None


def connect_producer(config: Settings) -> KafkaProducer:
    return KafkaProducer(
        **config.kafka_client(),
        client_id="replay",
        acks="all",
        max_block_ms=KAFKA_MS,
        request_timeout_ms=KAFKA_MS // 2,
        delivery_timeout_ms=KAFKA_MS,
        bootstrap_timeout_ms=KAFKA_MS // 2,
        max_request_size=LARGEST_RECORD,
        allow_auto_create_topics=False,
        metrics_enabled=False,
    )


def connect_consumer(config: Settings) -> KafkaConsumer:
    """Reads by itself, without a group: nobody else is disturbed."""
    return KafkaConsumer(
        **config.kafka_client(),
        client_id="replay",
        enable_auto_commit=False,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        request_timeout_ms=KAFKA_MS // 2,
        bootstrap_timeout_ms=KAFKA_MS // 2,
        fetch_max_wait_ms=100,
    )


def from_rows(rows: dict[Letter, Row], letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    for letter in letters:
        original = whole(rows[letter])
        if original is not None:
            yield letter, original


def from_log(config: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    consumer = connect_consumer(config)
    try:
        known = consumer.partitions_for_topic(config.kafka_topic) or set()
        yield from originals(consumer, [letter for letter in letters if letter.partition in known])
    finally:
        consumer.close(timeout_ms=1_000)


def from_copies(config: Settings, letters: list[Letter]) -> Iterator[tuple[Letter, Original]]:
    consumer = connect_consumer(config)
    try:
        numbers = consumer.partitions_for_topic(config.dead_letter_topic) or set()
        partitions = [TopicPartition(config.dead_letter_topic, number) for number in sorted(numbers)]
        yield from copies(consumer, partitions, letters)
    finally:
        consumer.close(timeout_ms=1_000)
