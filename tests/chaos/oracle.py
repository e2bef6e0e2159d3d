"""What the log implies, computed from its records in a few lines, without the product's decoder or database.

The rules are the contract's: which id a record is of, which version of it wins, which records are bad.
"""

import json
import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from kafka.consumer.fetcher import ConsumerRecord

from tests.chaos.bad_records import reason_of

NAMESPACE = uuid.UUID("5f0c6f0e-4f0b-5c0e-9d55-2f6f6f1c7a31")
UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")

Version = tuple[int, int, int]
Place = tuple[int, int]  # partition, offset


@dataclass(frozen=True)
class Text:
    """A row as it has to be. `created` is the timestamp, in ms, of the first text since the last deletion."""

    id: str
    version: Version
    message: str
    source_id: str | None
    metadata: Any
    created: int


@dataclass(frozen=True)
class Deletion:
    id: str
    version: Version


@dataclass(frozen=True)
class Bad:
    record: ConsumerRecord
    reason: str


@dataclass
class Expected:
    """The end state: rows by id, deletions by id, bad records by partition and offset."""

    rows: dict[str, Text] = field(default_factory=dict)
    deletions: dict[str, Deletion] = field(default_factory=dict)
    bad: dict[Place, Bad] = field(default_factory=dict)


def effect(record: ConsumerRecord) -> Text | Deletion | Bad:
    """What one record does when it is the latest of its message."""
    reason = reason_of(record.key, record.value)
    if reason is not None:
        return Bad(record, reason)
    version = (record.timestamp, record.partition, record.offset)
    if record.value is None:
        return Deletion(identity(record.key.decode())[0], version)
    document = json.loads(record.value)
    if document.get("id") is None:
        place = f"{record.topic}/{record.partition}/{record.offset}/{record.timestamp}"
        message_id, source_id = str(uuid.uuid5(NAMESPACE, place)), None
    else:
        message_id, source_id = identity(document["id"])
    return Text(message_id, version, document["text"], source_id, document.get("metadata"), record.timestamp)


def identity(given: str) -> tuple[str, str | None]:
    """The UUID of a message, and its source id where it was given one."""
    return (given.lower(), None) if UUID.fullmatch(given) else (str(uuid.uuid5(NAMESPACE, given)), given)


def expected(records: Iterable[ConsumerRecord]) -> Expected:
    """The end state after these records, in whatever order they are given."""
    end = Expected()
    for record in sorted(records, key=lambda each: (each.timestamp, each.partition, each.offset)):
        found = effect(record)
        if isinstance(found, Bad):
            end.bad[record.partition, record.offset] = found
        elif isinstance(found, Deletion):
            end.rows.pop(found.id, None)
            end.deletions[found.id] = found
        elif (before := end.rows.get(found.id)) is not None:
            end.rows[found.id] = replace(found, source_id=found.source_id or before.source_id, created=before.created)
        else:
            end.rows[found.id] = found
    return end
