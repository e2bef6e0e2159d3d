"""The tables as SQLAlchemy sees them: what Alembic compares the migrations with. No statement is built from them: the
other modules of db write their SQL out."""

import uuid
from datetime import datetime

from pgvector.sqlalchemy import HALFVEC
from sqlalchemy import BigInteger, CheckConstraint, Computed, Double, Identity, Index, LargeBinary, Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TIMESTAMP, UUID
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Timestamp = TIMESTAMP(timezone=True)
NOW = text("CURRENT_TIMESTAMP")
CLOCK = text("clock_timestamp()")


class Base(DeclarativeBase):
    pass


class TextMessage(Base):
    """A text as the log implies it: the record with the latest version of its id."""

    __tablename__ = "text_messages"
    id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    message: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime | None] = mapped_column(Timestamp, server_default=NOW)  # the record's timestamp
    processed_at: Mapped[datetime | None] = mapped_column(Timestamp, server_default=NOW)  # when it was last stored
    source_id: Mapped[str | None] = mapped_column(Text)  # the record's id, if that was no UUID
    metadata_: Mapped[dict[str, object] | None] = mapped_column("metadata", JSONB)
    version_timestamp: Mapped[int] = mapped_column(BigInteger, server_default="-1")  # ms since 1970
    version_partition: Mapped[int] = mapped_column(server_default="-1")
    version_offset: Mapped[int] = mapped_column(BigInteger, server_default="-1")
    content_hash: Mapped[uuid.UUID] = mapped_column(UUID, Computed("md5(message)::uuid", persisted=True))
    __table_args__ = (
        Index("text_messages_newest", text("created_at DESC NULLS LAST"), text("id DESC")),
        Index("text_messages_words", text("message_words(message)"), postgresql_using="gin"),
    )


class DeletedMessage(Base):
    """A deletion and its version, so that no older record of that id comes back."""

    __tablename__ = "deleted_messages"
    id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    version_timestamp: Mapped[int] = mapped_column(BigInteger)
    version_partition: Mapped[int]
    version_offset: Mapped[int] = mapped_column(BigInteger)
    deleted_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)


class DeadLetter(Base):
    """A record that could not be stored, once for its coordinates. A value over 64 KiB is kept cut; the log has it
    whole."""

    __tablename__ = "dead_letters"
    topic: Mapped[str] = mapped_column(Text, primary_key=True)
    partition: Mapped[int] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    timestamp: Mapped[int] = mapped_column(BigInteger)
    reason: Mapped[str] = mapped_column(Text)
    detail: Mapped[str] = mapped_column(Text)
    key: Mapped[bytes | None] = mapped_column(LargeBinary)
    value: Mapped[bytes | None] = mapped_column(LargeBinary)
    value_bytes: Mapped[int | None] = mapped_column(BigInteger)  # length of the whole value
    headers: Mapped[list[object]] = mapped_column(JSONB, server_default="[]")  # [name, base64 value or null] pairs
    state: Mapped[str] = mapped_column(Text, server_default="open")
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)
    state_changed_at: Mapped[datetime | None] = mapped_column(Timestamp)
    __table_args__ = (
        CheckConstraint("state IN ('open', 'replayed', 'dropped')", name="dead_letters_state_check"),
        Index("dead_letters_open", text("created_at DESC"), postgresql_where=text("state = 'open'")),
    )


class EmbeddingModel(Base):
    """The models that have made vectors; the active one answers searches."""

    __tablename__ = "embedding_models"
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    dimensions: Mapped[int]
    active: Mapped[bool] = mapped_column(server_default=text("false"))
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)
    settings: Mapped[dict[str, str] | None] = mapped_column(JSONB)  # that make its provider, without secrets
    instead_of: Mapped[list[object]] = mapped_column(JSONB, server_default="[]")  # settings that it has replaced
    followed_by: Mapped[str | None] = mapped_column(Text)  # the model whose vectors are made too, of the active row
    follow_now: Mapped[bool] = mapped_column(server_default=text("false"))
    first_id: Mapped[int] = mapped_column(BigInteger, server_default="1")  # none of its vectors has a lower id
    __table_args__ = (Index("embedding_models_one_active", "active", unique=True, postgresql_where=text("active")),)


class MessageEmbedding(Base):
    """The vector of one passage of a message; it counts only while content_hash is that of the message."""

    __tablename__ = "message_embeddings"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    message_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    passage_number: Mapped[int] = mapped_column(primary_key=True, server_default="0")
    passage_start: Mapped[int]  # characters, [start, end)
    passage_end: Mapped[int]
    content_hash: Mapped[uuid.UUID] = mapped_column(UUID)
    embedding: Mapped[object] = mapped_column(HALFVEC())
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)
    __table_args__ = (
        Index("message_embeddings_ids", "id"),
        # Texts that were embedded before are found by it (db.reuse).
        Index("message_embeddings_contents", "content_hash", postgresql_where=text("model <> 'hashing-384'")),
    )


class VectorIndexPart(Base):
    """A range [from_id, to_id) of one model's vectors with an HNSW index of its own, made by db.vector_index."""

    __tablename__ = "vector_index_parts"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    model: Mapped[str] = mapped_column(Text)
    from_id: Mapped[int] = mapped_column(BigInteger)
    to_id: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(Text, server_default="building")
    built_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")  # vectors in it when it was built
    live_rows: Mapped[int] = mapped_column(BigInteger, server_default="0")  # vectors in it when last counted
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=CLOCK)
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=CLOCK)  # of its state
    counted_at: Mapped[datetime] = mapped_column(Timestamp, server_default=CLOCK)
    build_seconds: Mapped[float] = mapped_column(Double, server_default="0")
    count_seconds: Mapped[float] = mapped_column(Double, server_default="0")  # what counting live_rows took
    __table_args__ = (
        CheckConstraint("state IN ('building', 'ready', 'retired')", name="vector_index_parts_state_check"),
        CheckConstraint("from_id < to_id", name="vector_index_parts_check"),
    )


class EmbeddingJob(Base):
    """The outbox: messages whose vectors have to be made to match their texts."""

    __tablename__ = "embedding_jobs"
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    message_ids: Mapped[list[uuid.UUID]] = mapped_column(ARRAY(UUID))
    deleted: Mapped[bool] = mapped_column(server_default=text("false"))
    attempts: Mapped[int] = mapped_column(server_default="0")
    lease: Mapped[uuid.UUID | None] = mapped_column(UUID)
    available_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)
    created_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)
    model: Mapped[str | None] = mapped_column(Text)  # none: the active one, whichever that is
    # How many edits and deletions there were before a trigger queued it; none of a job that no trigger queued.
    edits: Mapped[int | None] = mapped_column(
        BigInteger, server_default=text("CASE WHEN pg_trigger_depth() > 0 THEN edits_until_now() END")
    )
    __table_args__ = (Index("embedding_jobs_available", "available_at"),)


class EmbeddingFailure(Base):
    """A message that could not be embedded, with the reason, until it is edited or retried."""

    __tablename__ = "embedding_failures"
    message_id: Mapped[uuid.UUID] = mapped_column(UUID, primary_key=True)
    content_hash: Mapped[uuid.UUID] = mapped_column(UUID)
    model: Mapped[str] = mapped_column(Text, primary_key=True)
    reason: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    failed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=NOW)


class Reembedding(Base):
    """The change to another model: one row while there is one, and after it for as long as the old vectors are kept."""

    __tablename__ = "reembedding"
    id: Mapped[bool] = mapped_column(primary_key=True, server_default=text("true"))
    state: Mapped[str] = mapped_column(Text)
    model: Mapped[str] = mapped_column(Text)
    old_model: Mapped[str | None] = mapped_column(Text)
    undoing: Mapped[bool] = mapped_column(server_default=text("false"))
    scanned_to: Mapped[uuid.UUID | None] = mapped_column(UUID)
    scanned: Mapped[bool] = mapped_column(server_default=text("false"))
    problem: Mapped[str | None] = mapped_column(Text)
    problem_at: Mapped[datetime | None] = mapped_column(Timestamp)
    started_at: Mapped[datetime] = mapped_column(Timestamp, server_default=CLOCK)
    changed_at: Mapped[datetime] = mapped_column(Timestamp, server_default=CLOCK)
    __table_args__ = (CheckConstraint("id", name="reembedding_id_check"),)
