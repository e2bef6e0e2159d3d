"""Messages, their versions and deletions, dead letters, and the outbox that feeds the embedding.

A database that already has `text_messages` in its plain form (id, message, created_at, processed_at) is adopted: the
columns are added and a job is queued for the rows that it holds.

Revision: 0001, after nothing
"""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MESSAGES = """
CREATE EXTENSION IF NOT EXISTS vector;

CREATE TABLE IF NOT EXISTS text_messages (
    id UUID PRIMARY KEY,
    message TEXT NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP,
    processed_at TIMESTAMP WITH TIME ZONE DEFAULT CURRENT_TIMESTAMP
);

-- A version is the record's place in the log, compared as a tuple; -1 is the version of a row that no record wrote.
-- A table that was there may have no defaults for its times: many programs set them themselves.
ALTER TABLE text_messages
    ALTER COLUMN created_at SET DEFAULT CURRENT_TIMESTAMP,
    ALTER COLUMN processed_at SET DEFAULT CURRENT_TIMESTAMP,
    ADD COLUMN IF NOT EXISTS source_id TEXT,
    ADD COLUMN IF NOT EXISTS metadata JSONB,
    ADD COLUMN version_timestamp BIGINT NOT NULL DEFAULT -1,
    ADD COLUMN version_partition INTEGER NOT NULL DEFAULT -1,
    ADD COLUMN version_offset BIGINT NOT NULL DEFAULT -1,
    ADD COLUMN content_hash UUID NOT NULL GENERATED ALWAYS AS (md5(message)::uuid) STORED;

UPDATE text_messages SET created_at = coalesce(created_at, processed_at, CURRENT_TIMESTAMP) WHERE created_at IS NULL;
CREATE INDEX text_messages_newest ON text_messages (created_at DESC NULLS LAST, id DESC);

CREATE TABLE deleted_messages (
    id UUID PRIMARY KEY,
    version_timestamp BIGINT NOT NULL,
    version_partition INTEGER NOT NULL,
    version_offset BIGINT NOT NULL,
    deleted_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);

CREATE TABLE dead_letters (
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    "offset" BIGINT NOT NULL,
    timestamp BIGINT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    key BYTEA,
    value BYTEA,
    value_bytes BIGINT,
    headers JSONB NOT NULL DEFAULT '[]',
    state TEXT NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'replayed', 'dropped')),
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    state_changed_at TIMESTAMP WITH TIME ZONE,
    PRIMARY KEY (topic, partition, "offset")
);
CREATE INDEX dead_letters_open ON dead_letters (created_at DESC) WHERE state = 'open';
"""

EMBEDDINGS = """
CREATE TABLE embedding_models (
    name TEXT PRIMARY KEY,
    dimensions INTEGER NOT NULL,
    active BOOLEAN NOT NULL DEFAULT FALSE,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE UNIQUE INDEX embedding_models_one_active ON embedding_models (active) WHERE active;

-- No foreign key: it would cost a look-up with a row lock for each vector. The triggers below delete the vectors with
-- their message, and a search only counts a vector whose content_hash is still that of its message.
CREATE TABLE message_embeddings (
    id BIGINT GENERATED ALWAYS AS IDENTITY,
    message_id UUID NOT NULL,
    passage_number INTEGER NOT NULL DEFAULT 0,
    passage_start INTEGER NOT NULL,
    passage_end INTEGER NOT NULL,
    content_hash UUID NOT NULL,
    model TEXT NOT NULL,
    embedding HALFVEC NOT NULL,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (message_id, model, passage_number)
);
-- A vector does not shrink, so PostgreSQL need not try to compress it.
ALTER TABLE message_embeddings ALTER COLUMN embedding SET STORAGE EXTERNAL;

-- The outbox: one row for the messages of one statement, at most 500. A row means "make the vectors of these messages
-- match their texts", for deleted ones too. lease names who works on it; from available_at on anybody may take it.
CREATE TABLE embedding_jobs (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    message_ids UUID[] NOT NULL,
    deleted BOOLEAN NOT NULL DEFAULT FALSE,
    attempts INTEGER NOT NULL DEFAULT 0,
    lease UUID,
    available_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
    created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
CREATE INDEX embedding_jobs_available ON embedding_jobs (available_at);

CREATE TABLE embedding_failures (
    message_id UUID PRIMARY KEY,
    content_hash UUID NOT NULL,
    model TEXT NOT NULL,
    reason TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    failed_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP
);
"""

# The vectors of a deleted message may still be in the hand of a worker that has checked the message already; its
# transaction ends within 31 s (db.session; before PostgreSQL 17 only each of its statements is bounded), so a second
# look 35 s later finds whatever it left behind.
# Later migrations replace some of these functions: db.commands says where the present text of each is.
TRIGGERS = """
CREATE FUNCTION queue_embedding(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    collected TEXT := current_setting('text_pipeline.jobs', true);
    reserved DOUBLE PRECISION := 0;
    made TEXT;
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    -- persist_text asks for the ids of its jobs ('+'), because it hands them on itself and keeps the sweep off them.
    IF left(collected, 1) = '+' THEN
        reserved := current_setting('text_pipeline.reserved_seconds')::double precision;
    END IF;
    WITH jobs AS (
        INSERT INTO embedding_jobs (message_ids, available_at)
        SELECT array_agg(id), clock_timestamp() + make_interval(secs => reserved)
        FROM (SELECT id, (place - 1) / 500 AS part FROM unnest(ids) WITH ORDINALITY AS numbered (id, place)) AS cut
        GROUP BY part
        RETURNING id
    )
    SELECT string_agg(id::text, ',') INTO made FROM jobs;
    IF left(collected, 1) = '+' THEN
        PERFORM set_config('text_pipeline.jobs', concat_ws(',', collected, made), true);
    END IF;
END $$;

CREATE FUNCTION forget_embeddings(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM message_embeddings WHERE message_id = ANY (ids);
    DELETE FROM embedding_failures WHERE message_id = ANY (ids);
END $$;

CREATE FUNCTION remember_deletions(ids UUID[], timestamps BIGINT[], partitions INTEGER[], offsets BIGINT[])
    RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO deleted_messages AS d (id, version_timestamp, version_partition, version_offset)
    SELECT * FROM unnest(ids, timestamps, partitions, offsets)
    ON CONFLICT (id) DO UPDATE SET
        version_timestamp = excluded.version_timestamp,
        version_partition = excluded.version_partition,
        version_offset = excluded.version_offset,
        deleted_at = excluded.deleted_at
    WHERE (d.version_timestamp, d.version_partition, d.version_offset)
        < (excluded.version_timestamp, excluded.version_partition, excluded.version_offset);
END $$;

CREATE FUNCTION text_messages_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM queue_embedding((SELECT array_agg(id) FROM new_rows));
    RETURN NULL;
END $$;

CREATE FUNCTION text_messages_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed UUID[];
    gone UUID[];
    timestamps BIGINT[];
    partitions INTEGER[];
    offsets BIGINT[];
BEGIN
    SELECT array_agg(n.id) INTO changed
    FROM new_rows n LEFT JOIN old_rows o ON o.id = n.id
    WHERE o.id IS NULL OR o.content_hash <> n.content_hash;
    SELECT array_agg(id), array_agg(version_timestamp), array_agg(version_partition), array_agg(version_offset)
    INTO gone, timestamps, partitions, offsets
    FROM old_rows o WHERE NOT EXISTS (SELECT FROM new_rows n WHERE n.id = o.id);
    IF gone IS NOT NULL THEN
        -- The id was changed by hand: that is a deletion of the old one.
        PERFORM remember_deletions(gone, timestamps, partitions, offsets);
    END IF;
    IF changed IS NOT NULL OR gone IS NOT NULL THEN
        PERFORM forget_embeddings(changed || gone);
        PERFORM queue_embedding(changed);
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION text_messages_deleted() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    gone UUID[];
    timestamps BIGINT[];
    partitions INTEGER[];
    offsets BIGINT[];
BEGIN
    SELECT array_agg(id), array_agg(version_timestamp), array_agg(version_partition), array_agg(version_offset)
    INTO gone, timestamps, partitions, offsets FROM old_rows;
    IF gone IS NULL THEN
        RETURN NULL;
    END IF;
    PERFORM remember_deletions(gone, timestamps, partitions, offsets);
    PERFORM forget_embeddings(gone);
    INSERT INTO embedding_jobs (message_ids, deleted, available_at)
    SELECT array_agg(id), TRUE, clock_timestamp() + INTERVAL '35 s'
    FROM (SELECT id, (place - 1) / 500 AS part FROM unnest(gone) WITH ORDINALITY AS numbered (id, place)) AS cut
    GROUP BY part;
    RETURN NULL;
END $$;

CREATE FUNCTION text_messages_truncated() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM text_messages;
    RETURN NULL;
END $$;

-- A row typed by hand for an id that was deleted before takes the deletion's version: a replay must not overwrite it.
CREATE FUNCTION text_messages_typed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SELECT version_timestamp, version_partition, version_offset
    INTO NEW.version_timestamp, NEW.version_partition, NEW.version_offset
    FROM deleted_messages WHERE id = NEW.id;
    IF NOT FOUND THEN
        NEW.version_timestamp := -1;
        NEW.version_partition := -1;
        NEW.version_offset := -1;
    END IF;
    NEW.created_at := coalesce(NEW.created_at, CURRENT_TIMESTAMP);
    NEW.processed_at := coalesce(NEW.processed_at, CURRENT_TIMESTAMP);
    RETURN NEW;
END $$;

CREATE TRIGGER text_messages_inserted AFTER INSERT ON text_messages
    REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION text_messages_inserted();
CREATE TRIGGER text_messages_updated AFTER UPDATE ON text_messages
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION text_messages_updated();
CREATE TRIGGER text_messages_deleted AFTER DELETE ON text_messages
    REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT EXECUTE FUNCTION text_messages_deleted();
CREATE TRIGGER text_messages_truncated BEFORE TRUNCATE ON text_messages
    FOR EACH STATEMENT EXECUTE FUNCTION text_messages_truncated();
CREATE TRIGGER text_messages_typed BEFORE INSERT ON text_messages
    FOR EACH ROW WHEN (NEW.version_offset = -1) EXECUTE FUNCTION text_messages_typed();
"""

ADOPT = "SELECT queue_embedding(array_agg(id)) FROM text_messages"

DOWN = """
DROP TRIGGER text_messages_inserted ON text_messages;
DROP TRIGGER text_messages_updated ON text_messages;
DROP TRIGGER text_messages_deleted ON text_messages;
DROP TRIGGER text_messages_truncated ON text_messages;
DROP TRIGGER text_messages_typed ON text_messages;
DROP FUNCTION text_messages_inserted, text_messages_updated, text_messages_deleted, text_messages_truncated,
    text_messages_typed, queue_embedding, forget_embeddings, remember_deletions;
DROP TABLE embedding_failures, embedding_jobs, message_embeddings, embedding_models, dead_letters, deleted_messages;
DROP INDEX text_messages_newest;
ALTER TABLE text_messages
    DROP COLUMN version_timestamp,
    DROP COLUMN version_partition,
    DROP COLUMN version_offset,
    DROP COLUMN content_hash;
"""


def upgrade() -> None:
    for statements in (MESSAGES, EMBEDDINGS, TRIGGERS, ADOPT):
        op.get_bind().exec_driver_sql(statements)


def downgrade() -> None:
    """Back to the plain `text_messages`; source ids and metadata stay, since nothing could bring them back."""
    op.get_bind().exec_driver_sql(DOWN)
