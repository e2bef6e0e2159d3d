"""TRUNCATE text_messages CASCADE works where somebody's table refers to text_messages.

Revision: 0017, after 0016
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

# The trigger did a DELETE, which a reference forbids before CASCADE has emptied the table that it comes from. So it
# does what that of DELETE does (0001), and leaves the rows to TRUNCATE, which has locked the table before.
REMEMBERED = """
DECLARE
    gone UUID[];
    timestamps BIGINT[];
    partitions INTEGER[];
    offsets BIGINT[];
BEGIN
    SELECT array_agg(id), array_agg(version_timestamp), array_agg(version_partition), array_agg(version_offset)
    INTO gone, timestamps, partitions, offsets FROM text_messages;
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
END
"""
DELETED = """
BEGIN
    DELETE FROM text_messages;
    RETURN NULL;
END
"""

# A function that is replaced keeps its privileges, and loses what migration 0014 says of how it runs.
REPLACE = """
DO $do$
DECLARE
    home TEXT := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'text_messages'::regclass);
BEGIN
    EXECUTE 'CREATE OR REPLACE FUNCTION ' || home || '.text_messages_truncated() RETURNS trigger LANGUAGE plpgsql'
        ' SECURITY DEFINER SET search_path = ' || home || ', pg_temp AS ' || quote_literal({body});
END $do$
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(REPLACE.format(body=f"$body${REMEMBERED}$body$"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(REPLACE.format(body=f"$body${DELETED}$body$"))
