"""An embedding job knows how many edits and deletions there were before it, so that whoever stores its vectors need not
compare each text where there was none since.

Revision: 0008, after 0007
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

# A sequence, because it counts at once, for transactions that are not committed yet too. An edit or a deletion counts
# when it has its rows, and a trigger's job is written when its transaction has them: so none of its messages is edited
# later without a number above the job's. What a crash skips only makes jobs look older, and a job without a number, of
# before this migration, is compared. The first number is taken here: last_value would be the same before and after it.
COUNTER = """
CREATE SEQUENCE text_messages_edits;
SELECT nextval('text_messages_edits');
CREATE FUNCTION edits_until_now() RETURNS BIGINT LANGUAGE sql VOLATILE AS 'SELECT last_value FROM text_messages_edits';
ALTER TABLE embedding_jobs ADD COLUMN edits BIGINT;
ALTER TABLE embedding_jobs ALTER COLUMN edits SET DEFAULT edits_until_now();
"""

# The triggers of UPDATE and DELETE call it. As in 0001, but that it counts.
COUNTED = """
CREATE OR REPLACE FUNCTION forget_embeddings(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM nextval('text_messages_edits');
    DELETE FROM message_embeddings WHERE message_id = ANY (ids);
    DELETE FROM embedding_failures WHERE message_id = ANY (ids);
END $$;
"""

DOWN = """
CREATE OR REPLACE FUNCTION forget_embeddings(ids UUID[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM message_embeddings WHERE message_id = ANY (ids);
    DELETE FROM embedding_failures WHERE message_id = ANY (ids);
END $$;
ALTER TABLE embedding_jobs DROP COLUMN edits;
DROP FUNCTION edits_until_now;
DROP SEQUENCE text_messages_edits;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(COUNTER + COUNTED)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
