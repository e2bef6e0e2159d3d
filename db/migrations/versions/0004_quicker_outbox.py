"""The outbox with less work for the common case, and an index by which a text that was embedded before is found.

Revision: 0004, after 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

# As in 0001, but the ids of a statement are cut into several jobs only where they are more than one takes, and an
# INSERT ... ON CONFLICT that changed no row costs no join.
QUICKER = """
CREATE OR REPLACE FUNCTION queue_embedding(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
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
    IF cardinality(ids) <= 500 THEN
        INSERT INTO embedding_jobs (message_ids, available_at)
        VALUES (ids, clock_timestamp() + make_interval(secs => reserved))
        RETURNING id::text INTO made;
    ELSE
        WITH jobs AS (
            INSERT INTO embedding_jobs (message_ids, available_at)
            SELECT array_agg(id), clock_timestamp() + make_interval(secs => reserved)
            FROM (SELECT id, (place - 1) / 500 AS part FROM unnest(ids) WITH ORDINALITY AS numbered (id, place)) AS cut
            GROUP BY part
            RETURNING id
        )
        SELECT string_agg(id::text, ',') INTO made FROM jobs;
    END IF;
    IF left(collected, 1) = '+' THEN
        PERFORM set_config('text_pipeline.jobs', concat_ws(',', collected, made), true);
    END IF;
END $$;

CREATE OR REPLACE FUNCTION text_messages_updated() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed UUID[];
    gone UUID[];
    timestamps BIGINT[];
    partitions INTEGER[];
    offsets BIGINT[];
BEGIN
    IF NOT EXISTS (SELECT FROM old_rows) THEN
        RETURN NULL;
    END IF;
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
"""

# Not for the provider whose vectors are made more quickly than found.
CONTENTS = """
CREATE INDEX CONCURRENTLY message_embeddings_contents ON message_embeddings (content_hash)
WHERE model <> 'hashing-384'
"""


def upgrade() -> None:
    # The index first: what is in this block is committed at once, and has to be done again after a crash.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS message_embeddings_contents")
        op.execute(CONTENTS)
    op.get_bind().exec_driver_sql(QUICKER)


def downgrade() -> None:
    """The functions stay: they do the same as those of 0001."""
    op.get_bind().exec_driver_sql("DROP INDEX message_embeddings_contents")
