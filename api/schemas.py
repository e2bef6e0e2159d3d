"""What goes in and out, as pydantic models. The OpenAPI document is made from them, and input is checked by them.

Numbers of JSON bodies come as int or Decimal (bridge.message.parse), those of query strings as text. The models of the
answers describe what the queries return; nothing is run through them.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from bridge import message
from db.queries import RANKED, RANKED_BYTES
from settings import Settings

MAX_QUERY_CHARS = 10_000
MAX_WORDS_CHARS = 500  # with four bytes a character, percent-encoded, still within gunicorn's longest request line
MAX_BATCH = 1_000

NO_NUL = r"^[^\u0000]*$"
CURSOR = r"^[0-9a-f]{48}$"
TOPIC = r"^[A-Za-z0-9._-]{1,249}$"
# What they ask for, in words.
PATTERNS = {
    NO_NUL: "must be without the character NUL",
    CURSOR: "must be the `next` of the page before",
    TOPIC: "must be the name of a topic",
}
# Python's idea of white space (str.strip), which is what the bridge goes by.
WHITE = r"\u0009-\u000d\u001c-\u0020\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
NOT_BLANK = rf"^[^\u0000]*[^\u0000{WHITE}][^\u0000]*$"

# Any JSON but the character NUL, which PostgreSQL cannot store. A component of the document: it refers to itself.
JSON_VALUE: dict[str, Any] = {
    "anyOf": [
        {"type": ["null", "boolean", "number"]},
        {"type": "string", "pattern": NO_NUL},
        {"type": "array", "items": {"$ref": "#/components/schemas/JsonValue"}},
        {"$ref": "#/components/schemas/JsonObject"},
    ]
}
JSON_OBJECT: dict[str, Any] = {
    "type": "object",
    "propertyNames": {"pattern": NO_NUL},
    "additionalProperties": {"$ref": "#/components/schemas/JsonValue"},
}

# https://www.rfc-editor.org/rfc/rfc3339#section-5.6; without what ISO 8601 lets one leave out: the clock, the seconds,
# the offset's minutes, its colon
INSTANT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d:\d\d)(?:(:\d\d)(?:[.,](\d+))?)?([Zz]|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?",
    re.ASCII,
)


def whole_number(given: object) -> object:
    """An int for a query string's digits and for JSON numbers without a fraction; pydantic refuses anything else."""
    if isinstance(given, str) and re.fullmatch(r"-?(0|[1-9][0-9]{0,17})", given):
        return int(given)
    # Not by abs(): it rounds, and raises for an exponent beyond those of the context.
    if isinstance(given, Decimal) and given == given.to_integral_value() and -(10**18) < given < 10**18:
        return int(given)
    return given


def json_integer(given: object) -> object:
    return given if isinstance(given, str) else whole_number(given)


def real_number(given: object) -> object:
    if isinstance(given, int | Decimal) and not isinstance(given, bool):
        try:
            return float(given)
        except OverflowError:
            return float("inf") if given > 0 else float("-inf")
    return given


def instant(given: object) -> object:
    """ISO 8601 to what PostgreSQL reads, in UTC. A date alone is its midnight; no offset means UTC. A time between two
    microseconds, PostgreSQL's finest step, becomes the later one: as a bound both are the same."""
    if not isinstance(given, str):
        return given
    found = INSTANT.fullmatch(given)
    if not found:
        raise ValueError("must be a time of ISO 8601, such as 2025-01-31T12:00:00Z or 2025-01-31")
    date, minutes, seconds, fraction, offset = found.groups()
    leap = seconds == ":60"
    clock = (minutes or "00:00") + (":59" if leap else seconds or ":00")
    digits = (fraction or "").ljust(6, "0")
    micros = 999_999 if leap else int(digits[:6]) + bool(digits[6:].strip("0"))
    try:
        when = datetime.fromisoformat(f"{date}T{clock}{(offset or 'Z').upper()}")
    except ValueError as error:
        raise ValueError(f"must be a time that exists: {error}") from None
    try:
        utc = when.astimezone(UTC) + timedelta(microseconds=micros)
    except OverflowError:  # within a day of the year 1 or 9999
        return "-infinity" if when.year == 1 else "infinity"
    return utc.strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")


def storable(given: dict[str, Any]) -> dict[str, Any]:
    """Raises ValueError for an object that no metadata can contain, because PostgreSQL could not store it."""
    try:
        message.check_metadata(given)
    except message.BadRecord as error:
        raise ValueError(error.detail.replace("the metadata", "it")) from None
    return given


class Input(BaseModel):
    """Unknown members are ignored, like unknown keys of a record. `LEVELS` are those of JSON around a record's value:
    with them, a value can be nested as deeply as in a record."""

    LEVELS: ClassVar[int] = 0

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=True)


Cursor = Annotated[str, Field(pattern=CURSOR, description="the value of `next` of the page before")]
Instant = Annotated[
    str,
    BeforeValidator(instant),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}]}),
]
JsonObject = Annotated[dict[str, Any], WithJsonSchema({"$ref": "#/components/schemas/JsonObject"})]


class NewMessage(Input):
    """A text to be stored. With an `id` that is stored already, it replaces that text."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"message": "The cat sat on the mat.", "id": "note-1", "metadata": {"lang": "en"}}]
        }
    )

    message: str = Field(json_schema_extra={"minLength": 1, "pattern": NOT_BLANK})
    id: str | None = Field(
        None,
        json_schema_extra={
            "anyOf": [{"type": "string", "minLength": 1, "maxLength": 255, "pattern": NO_NUL}, {"type": "null"}]
        },
        description="a UUID, or any other string, which becomes `source_id`; without one, a UUID is made up",
    )
    metadata: JsonObject | None = Field(None, description="whatever belongs to the text; searches can filter by it")

    @model_validator(mode="before")
    @classmethod
    def like_a_record(cls, document: object, info: ValidationInfo) -> object:
        """The bridge's own check, so that nothing is taken here that would be a dead letter there. Raises BadRecord."""
        limit = info.context["max_text_chars"] if info.context else Settings.max_text_chars
        if isinstance(document, Mapping):
            record = {name: document.get(name) for name in ("id", "metadata")}
            message.check({**record, "text": document.get("message")}, limit)
        else:
            raise message.BadRecord(
                "not-an-object", f'expected {{"message": "..."}}, found {message.json_type(document)}'
            )
        return document


class NewMessages(Input):
    LEVELS = 2
    messages: list[NewMessage] = Field(min_length=1, max_length=MAX_BATCH)


class PageQuery(Input):
    limit: Annotated[int, BeforeValidator(whole_number)] = Field(10, ge=1, le=1000, description="messages a page")
    cursor: Cursor | None = None
    q: Annotated[str, Field(pattern=NO_NUL, max_length=MAX_WORDS_CHARS)] | None = Field(
        None, description='full text: words, "a phrase", -without'
    )


class SimilarQuery(Input):
    limit: Annotated[int, BeforeValidator(whole_number)] = Field(10, ge=1, le=100)


class TraceQuery(Input):
    partition: Annotated[int, BeforeValidator(whole_number)] = Field(ge=0, lt=2**31)
    offset: Annotated[int, BeforeValidator(whole_number)] = Field(ge=0, lt=10**18)
    topic: Annotated[str, Field(pattern=TOPIC)] | None = Field(
        None, description="without it, the topic that the pipeline reads"
    )


class SearchRequest(Input):
    """What to look for, and how."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "machine learning", "limit": 5, "filter": {"lang": "en"}}]}
    )

    query: str = Field(min_length=1, max_length=MAX_QUERY_CHARS, pattern=NO_NUL)
    limit: Annotated[int, BeforeValidator(json_integer)] = Field(10, ge=1, le=100)
    mode: Literal["semantic", "keyword", "hybrid"] = Field(
        "semantic",
        description=f"by meaning, by words (64 at most; of very many matches the {RANKED:,} newest are ranked, or "
        f"{RANKED_BYTES // 1_000_000} MB of them), or both rankings fused (reciprocal rank fusion)",
    )
    filter: Annotated[JsonObject, AfterValidator(storable)] | None = Field(
        None, description="only messages whose metadata contains this object"
    )
    min_score: Annotated[float, BeforeValidator(real_number)] | None = Field(
        None, description="only hits with at least this `score`, which is the mode's own: cosine, rank, or fused rank"
    )
    since: Instant | None = Field(None, description="created at this time or later; UTC where no offset is given")
    until: Instant | None = Field(None, description="created before this time")


class Output(BaseModel):
    model_config = ConfigDict(json_schema_serialization_defaults_required=True)


# Kept open on purpose: a row typed by hand may hold any JSON as metadata.
Metadata = Annotated[Any, Field(description="the JSON object that came with the text, or null")]
Time = Annotated[
    str | None,
    Field(description="ISO 8601 in UTC", json_schema_extra={"examples": ["2025-01-31T12:00:00.123+00:00"]}),
]


class Message(Output):
    id: str = Field(json_schema_extra={"format": "uuid"})
    source_id: str | None = Field(description="the id as it was sent, where that was not a UUID")
    message: str
    metadata: Metadata
    created_at: Time
    processed_at: Time
    embedding: Literal["ready", "pending", "failed"]


class MessagePage(Output):
    messages: list[Message]
    count: int = Field(ge=0, le=1000)
    next: Cursor | None


class Accepted(Output):
    id: str = Field(json_schema_extra={"format": "uuid"})
    status: Literal["accepted"]


class BatchAccepted(Output):
    ids: list[Annotated[str, Field(json_schema_extra={"format": "uuid"})]]
    count: int


class Minute(Output):
    minute: str
    messages: int


# To count each once would cost too much of a large backlog.
PENDING = "messages that wait for their embedding; one counts once more for each edit that waits"


class Stats(Output):
    messages: int | None = Field(description="null if there are so many that counting them takes too long")
    embeddings: int | None = Field(description="messages that have their embedding; null as above")
    pending: int = Field(description=PENDING)
    failed: int = Field(description="messages whose embedding failed")
    dead_letters: int = Field(description="open ones")
    lag: int | None = Field(description="records that the bridge has yet to commit; null while Kafka is away")
    per_minute: list[Minute] | None = Field(
        description="messages created in each of the last 60 minutes, oldest first; null if counting takes too long"
    )


class Hit(Output):
    id: str = Field(json_schema_extra={"format": "uuid"})
    source_id: str | None
    message: str
    passage: str = Field(description="the part of the message that fits best")
    metadata: Metadata
    score: float
    created_at: Time


class SearchAnswer(Output):
    query: str
    mode: Literal["semantic", "keyword", "hybrid"]
    model: str | None = Field(description="the model that made the vectors; null if none was asked (keyword)")
    took_ms: float
    count: int
    results: list[Hit] = Field(description="best first, each message once")


class IndexPart(Output):
    id: int
    rows: int = Field(description="vectors in it, as last counted: a minute ago, or longer if there are millions")
    state: Literal["ready"]


class IndexBuild(Output):
    """An index that is being built: of the open part, or of parts that it will replace. Searches do not wait for it."""

    id: int
    rows: int = Field(description="vectors that it will hold, about")
    phase: str | None = Field(description="PostgreSQL's word for it; null between two statements, or after a crash")
    progress: float = Field(ge=0, le=1)
    seconds: float = Field(description="since it began")


class Index(Output):
    kind: Literal["exact", "hnsw"] = Field(description="exact: so few vectors that none is built, or none is yet")
    vectors: int = Field(description="all of the active model, one a passage")
    indexed: int = Field(description="those that the parts hold, as last counted")
    open: int = Field(description="those that no part holds; they are scanned exactly, and found at once")
    unindexed: int = Field(description="vectors still waiting for an index; 0 if so few that they stay unindexed")
    settled: bool = Field(description="whether nothing is being built, and nothing would be if no text came any more")
    parts: list[IndexPart]
    building: IndexBuild | None


class Reembedding(Output):
    """A change to another model: its vectors are made beside those that answer searches, until all are there."""

    state: Literal["embedding", "indexing", "switching", "stopped", "switched", "dropping"] = Field(
        description="switched: the old vectors are kept for an undo; dropping: a set of vectors is being deleted"
    )
    model: str = Field(description="the model that is on its way; once switched, the active one; else the one dropped")
    dimensions: int | None
    from_model: str | None = Field(description="the model that it replaces; once switched, the one that is kept")
    undoing: bool = Field(description="whether it goes back to the old vectors")
    done: int | None = Field(
        description="messages that have their vector of this model, or failed; null if counting takes too long"
    )
    failed: int | None = Field(description="those of them that failed; null if `done` is")
    total: int | None = Field(description="all messages; null if `done` is")
    started_at: Time
    problem: str | None = Field(description="what a worker that could not go on has said within the last minute")


class Status(Output):
    status: Literal["up_to_date", "catching_up", "unavailable"]
    model: str | None
    dimensions: int | None
    embedded: int | None = Field(description="null also if counting takes too long, as in a very large table")
    pending: int | None = Field(description=PENDING)
    failed: int | None
    oldest_pending_seconds: float | None
    index: Index | None = Field(description="the index of the active model's vectors; null if `embedded` is")
    reembedding: Reembedding | None = Field(description="the change to another model; null while there is none")


class Health(Output):
    status: Literal["ok", "unavailable"]
    checks: dict[str, str] = Field(description='"ok" or the reason, for each part that this API needs')


class TraceHeader(Output):
    name: str
    value: str | None


class TraceRecord(Output):
    """A record as Kafka has it. Bytes are shown as text, what is no UTF-8 as \\xff, at most 1,000 characters each."""

    topic: str
    partition: int
    offset: int
    timestamp: Time
    in_log: bool | None = Field(description="whether the log still holds it; null if Kafka could not be asked")
    key: str | None
    value_bytes: int | None = Field(description="null for a deletion, and if the record is not at hand")
    headers: list[TraceHeader] = Field(description="the producer's, such as traceparent")
    problem: str | None = Field(description="why key and headers are missing")


class TraceStep(Output):
    step: Literal["logged", "stored", "queued", "embedded", "failed", "deleted", "dead_letter", "replayed", "dropped"]
    at: Time
    seconds: float | None = Field(
        description="since the step before. Below zero if the text was stored already when this record came: an "
        "unchanged text is not stored again"
    )


class TraceMessage(Output):
    created_at: Time
    processed_at: Time


class TraceEmbedding(Output):
    model: str
    passages: int
    index_part: int | None = Field(description="the index that holds it; null while it is found by an exact scan")


class TraceJob(Output):
    waits_since: Time
    attempts: int
    next_at: Time = Field(description="when it is given to a worker (again)")
    held: bool = Field(description="whether a worker is at it")


class TraceFailure(Output):
    reason: str
    attempts: int
    model: str


class TraceDeletion(Output):
    deleted_at: Time


class TracePlace(Output):
    timestamp: Time
    partition: int
    offset: int


class TraceLetter(Output):
    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    state: Literal["open", "replayed", "dropped"]
    noted_at: Time
    state_changed_at: Time


class Trace(Output):
    """The way of one record."""

    id: str | None = Field(description="the message's UUID; null if the record has not got that far")
    source_id: str | None
    state: Literal["searchable", "waiting", "failed", "deleted", "superseded", "dead_letter", "on_its_way"] = Field(
        description="waiting: for its vectors; on_its_way: in Kafka, and not yet in the database"
    )
    record: TraceRecord | None = Field(description="null for a row that was typed into the database")
    steps: list[TraceStep] = Field(description="in their order")
    message: TraceMessage | None
    embedding: TraceEmbedding | None
    job: TraceJob | None
    failure: TraceFailure | None
    deletion: TraceDeletion | None
    superseded_by: TracePlace | None = Field(description="the later record of the same message")
    dead_letters: list[TraceLetter] = Field(description="records of this message that could not be stored")


class BadItem(Output):
    index: int
    reason: str
    detail: str


class ProblemDocument(BaseModel):
    """RFC 9457. The members after `detail` are there if they say more."""

    type: str
    title: str
    status: int
    detail: str = Field(description="what is wrong, and what to change")
    reason: str | None = Field(None, description="the dead letter's word for it, as in `dead-letter-reason`")
    id: str | None = Field(None, description="the id to post again with")
    ids: list[str] | None = Field(None, description="the ids to post again with")
    errors: list[BadItem] | None = Field(None, description="each message of the batch that is wrong")
