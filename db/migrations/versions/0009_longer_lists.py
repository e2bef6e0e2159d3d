"""More may wait beside the text indexes before it is put into them, which costs the writers less.

Revision: 0009, after 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Whichever there are: settings choose, and the builder makes them (db/text_index.py, which has the size, too).
EACH = """
DO $$
DECLARE
    found REGCLASS;
BEGIN
    FOR found IN
        SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid = 'text_messages'::regclass
            AND (starts_with(c.relname, 'text_messages_words') OR c.relname = 'text_messages_metadata')
        ORDER BY i.indexrelid  -- as everybody locks them
    LOOP
        EXECUTE format('ALTER INDEX %%s {action}', found);
    END LOOP;
END $$
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(EACH.format(action="SET (gin_pending_list_limit = 16384)"))


def downgrade() -> None:
    op.get_bind().exec_driver_sql(EACH.format(action="RESET (gin_pending_list_limit)"))
