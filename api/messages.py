"""The calls of the text API: messages in, by way of Kafka, and out of the database. Nothing is written but to Kafka."""

import uuid
from collections.abc import Iterable, Sequence

import simplejson
from flask import Response, request
from kafka.errors import KafkaError

from api import cursor, schemas
from api.answers import json_answer
from api.effects import Rejected, wait_until_deleted, wait_until_stored
from api.kafka_log import MAX_RECORD_BYTES, KafkaAway, RecordTooLarge
from api.lookup import key_of, stored
from api.openapi import Answer, Operation, problem, unavailable
from api.parts import Parts
from api.probes import NoAnswer
from api.problems import Problem, Unavailable
from api.schemas import NewMessage, NewMessages, PageQuery
from api.tracing import kafka_headers
from bridge import message
from db import queries


def post_message(parts: Parts, body: NewMessage) -> Response:
    given = body.id or str(uuid.uuid4())
    message_id, _ = message.message_id(given)
    headers = kafka_headers(request.headers)
    value = record(body, given, headers)
    try:
        (appended,) = parts.log.append([(key(given), value)], headers)
    except KafkaAway as error:
        detail = "Kafka did not take the message in time: post it again with this id, which is safe"
        raise Unavailable(detail, id=given) from error
    except RecordTooLarge as error:
        raise too_large(str(error)) from None
    location = {"Location": f"/messages/{message_id}"}
    try:
        found = wait_until_stored(parts, message_id, appended)
    except Rejected as error:
        raise Problem(400, error.detail, reason=error.reason, id=message_id) from None
    if found is not None:
        return json_answer(found, 201, headers=location)
    return json_answer({"id": message_id, "status": "accepted"}, 202, headers=location)


def key(given: str) -> str:
    """The record key: the same for all records of a message, so that they are in one partition, in the order of the
    calls."""
    message_id, source_id = message.message_id(given)
    return source_id or message_id


def record(body: NewMessage, given: str, headers: Sequence[tuple[str, bytes]]) -> bytes:
    """The record's value. Raises Problem 413 for one that Kafka would not take with these headers."""
    document: dict[str, object] = {"id": given, "text": body.message}
    if body.metadata is not None:
        document["metadata"] = body.metadata
    value = simplejson.dumps(document, use_decimal=True, ensure_ascii=False, separators=(",", ":")).encode()
    size = len(value) + len(given.encode()) + sum(len(name) + len(content) for name, content in headers)
    if size > MAX_RECORD_BYTES:
        raise too_large(f"the record has {size} bytes, the limit is about {MAX_RECORD_BYTES}")
    return value


def too_large(detail: str) -> Problem:
    return Problem(413, f"the message with its metadata is too large for Kafka: {detail}")


def post_messages(parts: Parts, body: NewMessages) -> Response:
    given = [each.id or str(uuid.uuid4()) for each in body.messages]
    headers = kafka_headers(request.headers)
    records = [
        (key(each_id), record(each, each_id, headers)) for each_id, each in zip(given, body.messages, strict=True)
    ]
    try:
        parts.log.append(records, headers)
    except KafkaAway as error:
        detail = "Kafka did not take all of the messages in time: post them again with these ids, which is safe"
        raise Unavailable(detail, ids=given) from error
    except RecordTooLarge as error:
        raise too_large(str(error)) from None
    return json_answer({"ids": [message.message_id(each_id)[0] for each_id in given], "count": len(given)}, 202)


def list_messages(parts: Parts, query: PageQuery) -> Response:
    with parts.reader.connect() as connection:
        page = queries.newest(
            connection,
            parts.settings,
            limit=query.limit,
            after=cursor.read(query.cursor) if query.cursor else None,
            words=query.q or None,
        )
    if page["next"] is not None:
        page["next"] = cursor.shown(page["next"])
    return json_answer(page)


def get_message(parts: Parts, id: str) -> Response:
    with parts.reader.connect() as connection:
        return json_answer(stored(connection, id))


def delete_message(parts: Parts, id: str) -> Response:
    with parts.reader.connect() as connection:
        found = stored(connection, id)
    message_id = found["id"]
    try:
        (appended,) = parts.log.append([(key_of(found), None)], kafka_headers(request.headers))
    except KafkaAway as error:
        raise Unavailable("Kafka did not take the deletion in time: send it again", id=message_id) from error
    wait_until_deleted(parts, message_id, appended)
    return json_answer({"id": message_id, "status": "accepted"}, 202)


def get_stats(parts: Parts) -> Response:
    with parts.reader.connect() as connection:
        counts = queries.counts(connection)
        per_minute = queries.per_minute(connection)
    try:
        lag: int | None = parts.lag.answer()
    except (KafkaError, NoAnswer, OSError):
        lag = None
    return json_answer({**counts, "lag": lag, "per_minute": per_minute})


def with_id(answers: Iterable[tuple[int, Answer]]) -> dict[int, Answer]:
    return {404: problem("no message with this id is stored"), **dict(answers)}


LOCATION = {"Location": {"description": "where the message is, or will be", "schema": {"type": "string"}}}
AWAY = unavailable("the database is away")

OPERATIONS = [
    Operation(
        "POST",
        "/messages",
        post_message,
        "Store a text",
        {
            201: Answer("this text, or a later one of the same id, is stored", schemas.Message, headers=LOCATION),
            202: Answer("Kafka has it; storing takes longer than usual", schemas.Accepted, headers=LOCATION),
            503: unavailable("Kafka did not take it in time; posting again with the `id` given here is safe"),
        },
        description="Goes through Kafka like any other record, and waits a few seconds for it to be stored.",
        body=NewMessage,
    ),
    Operation(
        "POST",
        "/messages/batch",
        post_messages,
        "Store up to 1,000 texts",
        {
            202: Answer("Kafka has all of them", schemas.BatchAccepted),
            503: unavailable("Kafka did not take all of them in time; posting again with these `ids` is safe"),
        },
        description="All are checked first; where one is wrong, nothing is sent.",
        body=NewMessages,
    ),
    Operation(
        "GET",
        "/messages",
        list_messages,
        "The messages, newest first",
        {200: Answer("a page of messages", schemas.MessagePage), 503: AWAY},
        description="A page ends after about 8 MB of texts and metadata, so it may be shorter than `limit`: more "
        "follow while `next` is not null.",
        query=PageQuery,
    ),
    Operation(
        "GET",
        "/messages/{id}",
        get_message,
        "One message",
        with_id({200: Answer("the message", schemas.Message), 503: AWAY}.items()),
    ),
    Operation(
        "DELETE",
        "/messages/{id}",
        delete_message,
        "Delete a message and its vectors",
        with_id(
            {
                202: Answer("Kafka has the deletion, and it has taken effect or soon will", schemas.Accepted),
                503: unavailable("the database is away, or Kafka did not take it in time"),
            }.items()
        ),
    ),
    Operation(
        "GET", "/stats", get_stats, "Counts, lag and rates", {200: Answer("the counts", schemas.Stats), 503: AWAY}
    ),
]
