"""Only a job of a trigger has the number of edits before it; the old id of a message is looked at once more.

Revision: 0010, after 0009
"""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

# See 0008: the number is right where the transaction has the messages' rows. Who calls queue_embedding without them may
# come after an edit that has counted and is not committed.
NUMBERED = """
ALTER TABLE embedding_jobs
    ALTER COLUMN edits SET DEFAULT CASE WHEN pg_trigger_depth() > 0 THEN edits_until_now() END;
"""

# As in 0004, but for the job of what is gone, as text_messages_deleted queues it.
LOOKED_AT_AGAIN = """
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
        INSERT INTO embedding_jobs (message_ids, deleted, available_at)
        SELECT array_agg(id), TRUE, clock_timestamp() + INTERVAL '35 s'
        FROM (SELECT id, (place - 1) / 500 AS part FROM unnest(gone) WITH ORDINALITY AS numbered (id, place)) AS cut
        GROUP BY part;
    END IF;
    IF changed IS NOT NULL OR gone IS NOT NULL THEN
        PERFORM forget_embeddings(changed || gone);
        PERFORM queue_embedding(changed);
    END IF;
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(NUMBERED + LOOKED_AT_AGAIN)


def downgrade() -> None:
    """Both stay: a release before takes the number away itself, and knows such a job from a deletion."""
