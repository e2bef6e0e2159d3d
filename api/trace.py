"""The way of one record from Kafka to the search: GET /trace/ID, and GET /trace by its place in the log. Only reads.

The database says what became of it; its key, its headers and when it came are asked from Kafka, which may be away.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from flask import Response
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaError
from sqlalchemy import Connection

from api import kafka_record, schemas
from api.answers import json_answer
from api.lookup import key_of
from api.openapi import Answer, Operation, problem, unavailable
from api.parts import Parts
from api.problems import Problem
from api.schemas import TraceQuery
from bridge import message
from bridge.message import BadRecord
from db import dead_letter_queries, trace_queries
from db.queries import Row
from db.session import first_line
from letter_headers import Coordinates
from records import iso_time
from settings import Settings

Version = tuple[int, int, int]  # timestamp, partition, offset

SHOWN_CHARS = 1_000
SHOWN_HEADERS = 100
BY_HAND = -1  # the version of a row that no record wrote


def trace_message(parts: Parts, id: str) -> Response:
    try:
        message_id, _ = message.message_id(id)
    except BadRecord as error:
        raise Problem(404, f"no message can have this id: {error.detail}") from None
    with parts.reader.connect() as connection:
        known = look(connection, message_id)
        forms = {id, message_id} | ({key_of(known.stored)} if known.stored else set())
        letters = dead_letter_queries.of_message(connection, sorted(forms))
    version = known.version
    if version is None and not letters:
        raise Problem(404, f"nothing is known of {id!r}: it was never stored, or is still on its way through Kafka")
    if version is not None:
        record = of_log(parts.settings, *version) if version[0] != BY_HAND else None
        return json_answer(story(known, record, letters, version))
    newest = letters[0]
    place = (newest["timestamp"], newest["partition"], newest["offset"])
    topic = newest["topic"]  # another than that of the settings if those were changed since
    is_read = topic == parts.settings.kafka_topic
    record = of_log(parts.settings, *place) if is_read else lost_record(topic, *place, None)
    return json_answer(of_letter(known, record, letters, newest, place))


def trace_record(parts: Parts, query: TraceQuery) -> Response:
    settings = parts.settings
    topic, partition, offset = query.topic or settings.kafka_topic, query.partition, query.offset
    record, away = fetch(settings, partition, offset) if topic == settings.kafka_topic else (None, None)
    with parts.reader.connect() as connection:
        letter = dead_letter_queries.one_without_bytes(connection, topic, partition, offset)
        if letter is not None and record is not None and record.timestamp != letter["timestamp"]:
            letter = None  # of an older topic of that name, which is gone
        message_id, version = identity(settings, record)
        if message_id is None and letter is None and topic == settings.kafka_topic:
            message_id = trace_queries.message_at(connection, partition, offset)
        known = look(connection, message_id) if message_id else Known(None, None)
    shown = shown_record(record) if record is not None else None
    if letter is not None and (letter["state"] != "replayed" or known.version is None):
        place = (letter["timestamp"], partition, offset)
        shown = shown or lost_record(topic, *place, away)
        return json_answer(of_letter(known, shown, [letter], letter, place))
    letters = [letter] if letter else []
    if version is None and known.version is not None:
        version = known.version
        shown = lost_record(topic, *version, away)
    if version is None:
        if record is not None:  # it will be a dead letter, and is not one yet
            return json_answer(story(known, shown, [], (record.timestamp, partition, offset)))
        why = f": {away}" if away else "; Kafka holds no record there, any more or yet"
        raise Problem(404, f"nothing is known of {topic}:{partition}:{offset}{why}")
    return json_answer(story(known, shown, letters, version))


class Known:
    """What the database has of a message: the row, the remembered deletion, and the later version of the two."""

    def __init__(self, stored: Row | None, deleted: Row | None) -> None:
        self.stored = stored
        self.deleted = deleted

    @property
    def version(self) -> Version | None:
        """That of the row if there is one: a deletion of a later version would have removed it."""
        return as_version((self.stored or self.deleted or {}).get("version"))


def look(connection: Connection, message_id: str) -> Known:
    return Known(trace_queries.message(connection, message_id), trace_queries.deletion(connection, message_id))


def as_version(found: Sequence[int] | None) -> Version | None:
    return (found[0], found[1], found[2]) if found else None


def identity(settings: Settings, record: ConsumerRecord | None) -> tuple[str | None, Version | None]:
    """The message that a record is about, and the record's version: for a replay, that of its first coming."""
    if record is None:
        return None, None
    at = Coordinates(record.topic, record.partition, record.offset, record.timestamp)
    try:
        decoded = message.decode(at, record.key, record.value, record.headers, settings.max_text_chars)
    except BadRecord:
        return None, None
    return decoded.id, decoded.version


def fetch(settings: Settings, partition: int, offset: int) -> tuple[ConsumerRecord | None, str | None]:
    """The record, and why Kafka could not be asked."""
    try:
        return kafka_record.read(settings, partition, offset), None
    except (KafkaError, OSError) as error:
        return None, f"Kafka does not answer: {first_line(error)}"


def of_log(settings: Settings, timestamp: int, partition: int, offset: int) -> Row:
    record, away = fetch(settings, partition, offset)
    if record is not None and record.timestamp == timestamp:  # else the topic was made again
        return shown_record(record)
    return lost_record(settings.kafka_topic, timestamp, partition, offset, away)


def shown_record(record: ConsumerRecord) -> Row:
    return {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": iso_time(record.timestamp),
        "in_log": True,
        "key": readable(record.key),
        "value_bytes": None if record.value is None else len(record.value),
        "headers": [{"name": name[:SHOWN_CHARS], "value": readable(value)} for name, value in record.headers][
            :SHOWN_HEADERS
        ],
        "problem": None,
    }


def lost_record(topic: str, timestamp: int, partition: int, offset: int, away: str | None) -> Row:
    gone = "the log does not hold it any more"
    return {
        "topic": topic,
        "partition": partition,
        "offset": offset,
        "timestamp": iso_time(timestamp),
        "in_log": None if away else False,
        "key": None,
        "value_bytes": None,
        "headers": [],
        "problem": away or gone,
    }


def readable(content: bytes | None) -> str | None:
    return None if content is None else content[: 4 * SHOWN_CHARS].decode("utf-8", "backslashreplace")[:SHOWN_CHARS]


def story(known: Known, record: Row | None, letters: list[Row], version: Version) -> Row:
    """The way of the record of this version, as far as it has come."""
    stored, deleted = known.stored, known.deleted
    logged = [("logged", record["timestamp"])] if record else []
    now = as_version(stored["version"]) if stored else None
    gone = as_version(deleted["version"]) if deleted else None
    later = max((each for each in (now, gone) if each is not None and each > version), default=None)
    if now == version and stored is not None:
        state, steps = fate(stored)
        told = answer(known, state, record, letters, [*logged, ("stored", stored["processed_at"]), *steps])
        return told | {"message": part(stored, "created_at", "processed_at")} | outcome(stored)
    if gone is not None and deleted is not None and gone >= version and (now is None or now <= gone):
        return answer(known, "deleted", record, letters, [*logged, ("deleted", deleted["deleted_at"])]) | {
            "superseded_by": place(later),
            "deletion": {"deleted_at": deleted["deleted_at"]},
        }
    if later is not None:
        return answer(known, "superseded", record, letters, logged) | {"superseded_by": place(later)}
    return answer(known, "on_its_way", record, letters, logged)


def fate(stored: Row) -> tuple[str, list[tuple[str, str | None]]]:
    """What has become of a stored text, and the steps of that."""
    if stored["model"] is not None:
        return "searchable", [("embedded", stored["embedded_at"])]
    if stored["failure"] is not None:
        return "failed", [("failed", stored["failed_at"])]
    return "waiting", [("queued", stored["waits_since"])] if stored["waits_since"] else []


def outcome(stored: Row) -> Row:
    found: Row = {}
    if stored["model"] is not None:
        found["embedding"] = part(stored, "model", "passages", "index_part")
    if stored["failure"] is not None:
        names = {"reason": "failure", "attempts": "failure_attempts", "model": "failure_model"}
        found["failure"] = {name: stored[column] for name, column in names.items()}
    if stored["waits_since"] is not None and stored["model"] is None:  # else it is of a model that is on its way
        found["job"] = part(stored, "waits_since", "attempts", "next_at", "held")
    return found


def of_letter(known: Known, record: Row | None, letters: list[Row], letter: Row, version: Version) -> Row:
    """The way of a record that is a dead letter."""
    steps = [("logged", record["timestamp"] if record else iso_time(version[0])), ("dead_letter", letter["noted_at"])]
    if letter["state"] != "open":
        steps.append((letter["state"], letter["state_changed_at"]))
    return answer(known, "dead_letter", record, letters, steps)


def answer(
    known: Known, state: str, record: Row | None, letters: list[Row], steps: Iterable[tuple[str, str | None]]
) -> Row:
    row = known.stored or known.deleted or {}
    return {
        "id": row.get("id"),
        "source_id": row.get("source_id"),
        "state": state,
        "record": record,
        "steps": timed(steps),
        "message": None,
        "embedding": None,
        "job": None,
        "failure": None,
        "deletion": None,
        "superseded_by": None,
        "dead_letters": [shown_letter(each) for each in letters],
    }


def timed(steps: Iterable[tuple[str, str | None]]) -> list[Row]:
    """The steps with the seconds since the one before, if both have a time."""
    found: list[Row] = []
    before: datetime | None = None
    for name, at in steps:
        now = moment(at)
        seconds = round((now - before).total_seconds(), 6) if now and before else None
        found.append({"step": name, "at": at, "seconds": seconds})
        before = now
    return found


def moment(at: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(at) if at else None
    except ValueError:  # a time typed by hand, such as infinity
        return None


def place(version: Version | None) -> Row | None:
    if version is None or version[0] == BY_HAND:
        return None
    return {"timestamp": iso_time(version[0]), "partition": version[1], "offset": version[2]}


def shown_letter(letter: Row) -> Row:
    return part(letter, "topic", "partition", "offset", "reason", "detail", "state", "noted_at", "state_changed_at")


def part(row: Row, *names: str) -> dict[str, Any]:
    return {name: row[name] for name in names}


ANSWERS = {
    200: Answer("its way so far", schemas.Trace),
    404: problem("nothing is known of it"),
    503: unavailable("the database is away"),
}

OPERATIONS = [
    Operation(
        "GET",
        "/trace/{id}",
        trace_message,
        "The way of a message",
        ANSWERS,
        description="From its latest record in Kafka to its vectors, or to where it is now, with a time for each step.",
    ),
    Operation(
        "GET",
        "/trace",
        trace_record,
        "The way of a record",
        ANSWERS,
        description="As above, but of the record at a place in the log, which may have been superseded since.",
        query=TraceQuery,
    ),
]
