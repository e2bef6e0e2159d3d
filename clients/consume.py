"""Reading records for people: as a member of a group, which keeps its place, and as lines of JSON.

Without a group `follow` reads, which disturbs no other reader.
"""

import base64
import time
from collections.abc import Iterator

from kafka import KafkaConsumer
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaTimeoutError

from clients import json_form
from kafka_clients import member_poll_ms
from replay.reading import POLL_MS, POLL_RECORDS, commit_taken, drain
from replay.reading import follow as follow

JOIN_SECONDS = 25.0  # longer than the session of a member that ended without a word


def follow_as_group(
    consumer: KafkaConsumer, topic: str, *, limit: int | None, patience: float
) -> Iterator[ConsumerRecord]:
    """Like `follow`, as a member of the consumer's group: goes on where that left off, and commits what it took."""
    consumer.subscribe([topic])
    deadline = time.monotonic() + JOIN_SECONDS
    first: list[ConsumerRecord] = []
    while not consumer.assignment():
        if time.monotonic() > deadline:
            raise KafkaTimeoutError("the group gave out no partitions in time")
        timeout = member_poll_ms(consumer, POLL_MS)
        polled = consumer.poll(timeout_ms=timeout, max_records=min(POLL_RECORDS, limit or POLL_RECORDS))
        first.extend(record for records in polled.values() for record in records)
    yield from first
    if first:
        commit_taken(consumer)
    ends = consumer.end_offsets(list(consumer.assignment()))
    left = None if limit is None else limit - len(first)
    yield from drain(consumer, ends, limit=left, patience=patience, commit=True)
    commit_taken(consumer)


def as_json(record: ConsumerRecord) -> str:
    """A record as one line of JSON; bytes that are not UTF-8 are {"base64": "..."}."""
    return json_form.dump(
        {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "timestamp": record.timestamp,
            "key": readable(record.key),
            "value": readable(record.value),
            "headers": [[name, readable(value)] for name, value in record.headers],
        }
    )


def readable(content: bytes | None) -> str | dict[str, str] | None:
    if content is None:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}
