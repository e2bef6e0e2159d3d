"""The seven checks of the running system, each through the system's ports, as any client, with texts of its own.

A check returns when all is as it should be and raises Unmet when it is not, before its deadline. clients.e2e runs them.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import psycopg2

import kafka_clients
from clients import connect, produce, rest
from clients.terminal import CommandFailed
from db import schema
from settings import Settings

Found = TypeVar("Found")

PAUSE_SECONDS = 0.05
CALL_SECONDS = 8.0

COLUMNS = {
    "id": ("uuid", "NO"),
    "message": ("text", "NO"),
    "created_at": ("timestamp with time zone", "YES"),
    "processed_at": ("timestamp with time zone", "YES"),
}

CAT = "The kitten fell asleep on a warm windowsill."
OTHERS = [
    "The central bank raised interest rates by a quarter point.",
    "Astronomers photographed a distant galaxy with the new telescope.",
]


class Unmet(Exception):
    """A check's expectation that was not met: what was expected, and what came instead."""

    def __init__(self, expected: str, came: object) -> None:
        super().__init__(f"expected {expected}, got {came}")


@dataclass
class Trial:
    """One run of the checks: its connections, its mark on every text, and what it has to delete at the end."""

    settings: Settings
    mark: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    created: list[str] = field(default_factory=list)
    deadline: float = 0.0

    def __post_init__(self) -> None:
        key = self.settings.own_api_key
        text_api = rest.text_url(self.settings)
        self.text_api = rest.Api(text_api, key, seconds=CALL_SECONDS)
        self.search_api = rest.Api(rest.search_url(text_api, self.settings), key, seconds=CALL_SECONDS)

    def new_id(self, what: str) -> str:
        """An id that nobody else has, deleted at the end."""
        self.created.append(f"e2e-{self.mark}-{what}")
        return self.created[-1]

    def eventually(self, expected: str, check: Callable[[], tuple[Found | None, object]]) -> Found:
        """Repeats a check, which returns what it found and what it saw, until it finds something or time is up."""
        while True:
            found, seen = check()
            if found is not None:
                return found
            if time.monotonic() > self.deadline:
                raise Unmet(f"{expected} in time", seen)
            time.sleep(PAUSE_SECONDS)

    def message(self, message_id: str) -> Mapping[str, Any] | None:
        found = self.text_api.call("GET", rest.message_path(message_id), also=(404,))
        return dict(found.document) if found.status == 200 else None

    def wait_for(self, message_id: str, text: str, embedding: str | None = None) -> Mapping[str, Any]:
        """The message, once it is stored with this text and its embedding is in this state."""

        def look() -> tuple[Mapping[str, Any] | None, object]:
            found = self.message(message_id)
            if found is None:
                return None, "404"
            fits = found["message"] == text and embedding in (None, found["embedding"])
            return found if fits else None, f"{found['message']!r}, embedding {found['embedding']}"

        return self.eventually(f"{message_id} stored" + (f" and {embedding}" if embedding else ""), look)

    def search(self, query: str) -> list[Mapping[str, Any]]:
        """The hits among the texts of this trial."""
        body = {"query": query, "limit": 10, "filter": {"e2e": self.mark}}
        return list(self.search_api.call("POST", "/embeddings/search", body=body).document["results"])

    def knows_meanings(self) -> bool:
        """Whether the model is a real one; the hashing provider knows words only."""
        return not str(self.search_api.call("GET", "/status").document["model"]).startswith("hashing")

    def produce(self, message_id: str, text: str | None) -> None:
        """Sends a record, or a tombstone, and waits until Kafka has it."""
        value = {"id": message_id, "text": text, "metadata": {"e2e": self.mark}}
        content = None if text is None else json.dumps(value).encode()
        largest = kafka_clients.BROKER_MAX_BYTES
        with connect.producer(self.settings, largest) as producer, connect.kafka_errors(self.settings):
            produce.send_one(producer, self.settings.kafka_topic, message_id.encode(), content, ())

    def ask_database(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with database(self.settings) as cursor:
            cursor.execute(query, values)
            return list(cursor.fetchall())


@contextmanager
def database(settings: Settings) -> Iterator[Any]:
    """A cursor of the owner of the tables. Raises Unmet when PostgreSQL does not answer."""
    where = f"PostgreSQL at {settings.database_address}:{settings.database_port}"
    which: dict[str, Any] = {**settings.at_primary}
    try:
        connection = psycopg2.connect(
            host=settings.database_address,
            port=settings.database_port,
            dbname=settings.database_name,
            user=settings.database_user,
            password=settings.database_password,
            connect_timeout=5,
            client_encoding="utf8",
            options="-c statement_timeout=5000",
            **which,
        )
    except psycopg2.OperationalError as error:
        raise Unmet(where, str(error).strip()) from error
    try:
        with connection.cursor() as cursor:
            yield cursor
    except psycopg2.Error as error:
        raise Unmet(f"an answer of {where}", str(error).strip()) from error
    finally:
        connection.close()


def service_health(trial: Trial) -> None:
    for name, api in (("text API", trial.text_api), ("search API", trial.search_api)):

        def look(api: rest.Api = api) -> tuple[bool | None, object]:
            try:
                found = api.call("GET", "/health", also=(503,))
            except CommandFailed as error:
                return None, error
            return (True if found.document["status"] == "ok" else None), found.document.get("checks")

        trial.eventually(f"the {name} to be healthy", look)


def database_schema(trial: Trial) -> None:
    columns = trial.ask_database(
        "SELECT column_name, data_type, is_nullable, column_default FROM information_schema.columns "
        "WHERE table_name = 'text_messages' AND table_schema = (SELECT nspname FROM pg_namespace n JOIN pg_class c "
        "ON n.oid = relnamespace WHERE c.oid = to_regclass('text_messages'))"
    )
    found = {name: (kind, nullable) for name, kind, nullable, _ in columns}
    for name, kind in COLUMNS.items():
        if found.get(name) != kind:
            raise Unmet(f"text_messages.{name} to be {kind}", found.get(name, "no such column"))
    missing = [
        name for name, _, nullable, default in columns if nullable == "NO" and not default and name not in COLUMNS
    ]
    generated = trial.ask_database(
        "SELECT attname FROM pg_attribute WHERE attrelid = 'text_messages'::regclass AND attgenerated <> ''"
    )
    if further := set(missing) - {name for (name,) in generated}:
        raise Unmet("every further column of text_messages to have a default", f"none for {', '.join(further)}")
    if trial.ask_database("SELECT to_regclass('message_embeddings')")[0][0] is None:
        raise Unmet("a table message_embeddings", "none")
    version = trial.ask_database("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    if not version or tuple(map(int, version[0][0].split(".")[:2])) < (0, 8):
        raise Unmet("pgvector 0.8 or later", version[0][0] if version else "none")
    revision = trial.ask_database("SELECT version_num FROM alembic_version")
    latest = schema.latest()
    if revision != [(latest,)]:
        raise Unmet(f"the schema at revision {latest}", revision or "none")


def create_and_retrieve(trial: Trial) -> None:
    message_id, text = trial.new_id("api"), f"Stored by the API in run {trial.mark}."
    body = {"id": message_id, "message": text, "metadata": {"e2e": trial.mark}}
    posted = trial.text_api.call("POST", "/messages", body=body)
    if posted.status not in (201, 202):
        raise Unmet("status 201 or 202 for POST /messages", posted.status)
    stored = trial.wait_for(message_id, text)
    if stored["source_id"] != message_id or stored["metadata"] != {"e2e": trial.mark}:
        raise Unmet(f"source_id {message_id} and its metadata", f"{stored['source_id']}, {stored['metadata']}")
    by_uuid = trial.message(stored["id"])
    if by_uuid is None or by_uuid["source_id"] != message_id:
        raise Unmet(f"the same message by its UUID {stored['id']}", by_uuid)
    listed = trial.text_api.call("GET", "/messages", parameters={"limit": 10, "q": trial.mark}).document["messages"]
    if stored["id"] not in [message["id"] for message in listed]:
        raise Unmet("the message in the list of those with its words", [message["id"] for message in listed])
    if trial.message(f"e2e-{trial.mark}-nobody") is not None:
        raise Unmet("404 for an id that nobody has", "a message")


def kafka_processing(trial: Trial) -> None:
    message_id, text = trial.new_id("kafka"), f"Sent through Kafka in run {trial.mark}."
    trial.produce(message_id, text)
    stored = trial.wait_for(message_id, text)
    rows = trial.ask_database("SELECT message FROM text_messages WHERE id = %s", stored["id"])
    if rows != [(text,)]:
        raise Unmet(f"one row of text_messages with {text!r}", rows)


def embedding_generation(trial: Trial) -> None:
    message_id, text = trial.new_id("embedding"), f"To be embedded in run {trial.mark}."
    trial.produce(message_id, text)
    stored = trial.wait_for(message_id, text, "ready")
    status = trial.search_api.call("GET", "/status").document
    rows = trial.ask_database(
        "SELECT model, vector_dims(embedding) FROM message_embeddings WHERE message_id = %s", stored["id"]
    )
    if (status["model"], status["dimensions"]) not in rows:
        raise Unmet(f"a vector of {status['model']} with {status['dimensions']} dimensions", rows or "none")


def similarity_search(trial: Trial) -> None:
    texts = {trial.new_id(f"search-{number}"): text for number, text in enumerate([CAT, *OTHERS])}
    messages = [
        {"id": message_id, "message": text, "metadata": {"e2e": trial.mark}} for message_id, text in texts.items()
    ]
    trial.text_api.call("POST", "/messages/batch", body={"messages": messages})
    for message_id, text in texts.items():
        trial.wait_for(message_id, text, "ready")
    query = "a sleepy young cat in the sun" if trial.knows_meanings() else "kitten asleep on a windowsill"
    hits = trial.search(query)
    if not hits or hits[0]["message"] != CAT:
        raise Unmet(f"{CAT!r} first for {query!r}", repr(hits[0]["message"]) if hits else "nothing")
    scores = [hit["score"] for hit in hits]
    if scores != sorted(scores, reverse=True) or not all(-1 <= score <= 1 for score in scores):
        raise Unmet("cosine similarities, best first", scores)


def full_pipeline(trial: Trial) -> None:
    """A text comes through Kafka and is found; its next version replaces it everywhere; its deletion leaves nothing."""
    message_id = trial.new_id("pipeline")
    first = f"The orchestra tuned its violins before the concert, run {trial.mark}."
    second = f"Heavy snow closed the mountain pass overnight, run {trial.mark}."
    for text in (first, second):
        trial.produce(message_id, text)
        trial.wait_for(message_id, text, "ready")
        found = [hit["message"] for hit in trial.search(text) if hit["source_id"] == message_id]
        if found != [text]:
            raise Unmet(f"{text!r} to be found, once", found or "nothing")
    trial.produce(message_id, None)
    trial.eventually(
        "404 after the deletion", lambda: (True, "404") if trial.message(message_id) is None else (None, "the message")
    )
    if left := [hit["message"] for hit in trial.search(second) if hit["source_id"] == message_id]:
        raise Unmet("nothing to be found after the deletion", left)


# Each with the seconds that it may take.
CHECKS: list[tuple[str, Callable[[Trial], None], float]] = [
    ("service health", service_health, 10),
    ("database schema", database_schema, 5),
    ("API create and retrieve", create_and_retrieve, 8),
    ("Kafka processing", kafka_processing, 8),
    ("embedding generation", embedding_generation, 8),
    ("similarity search", similarity_search, 8),
    ("full pipeline", full_pipeline, 12),
]
