"""Who hands the jobs of a few messages on with their texts may take them at once, so that nobody has to claim them.

Revision: 0007, after 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# As in 0006, but for the lease.
HELD = """
CREATE OR REPLACE FUNCTION queue_embedding(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    collected TEXT := current_setting('text_pipeline.jobs', true);
    size INTEGER := coalesce(nullif(current_setting('text_pipeline.job_messages', true), ''), '500')::integer;
    reserved DOUBLE PRECISION := 0;
    held UUID;
    made TEXT;
BEGIN
    IF ids IS NULL THEN
        RETURN;
    END IF;
    -- persist_text asks for the ids of its jobs ('+'), because it hands them on itself and keeps the sweep off them.
    IF left(collected, 1) = '+' THEN
        reserved := current_setting('text_pipeline.reserved_seconds')::double precision;
        held := nullif(current_setting('text_pipeline.lease', true), '')::uuid;
    END IF;
    IF cardinality(ids) <= size THEN
        INSERT INTO embedding_jobs (message_ids, available_at, lease)
        VALUES (ids, clock_timestamp() + make_interval(secs => reserved), held)
        RETURNING id::text INTO made;
    ELSE
        WITH jobs AS (
            INSERT INTO embedding_jobs (message_ids, available_at)
            SELECT array_agg(id), clock_timestamp() + make_interval(secs => reserved)
            FROM (SELECT id, (place - 1) / size AS part FROM unnest(ids) WITH ORDINALITY AS numbered (id, place)) AS cut
            GROUP BY part
            RETURNING id
        )
        SELECT string_agg(id::text, ',') INTO made FROM jobs;
    END IF;
    IF left(collected, 1) = '+' THEN
        PERFORM set_config('text_pipeline.jobs', concat_ws(',', collected, made), true);
    END IF;
END $$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(HELD)


def downgrade() -> None:
    """The function stays: without the setting it does the same as that of 0006."""
