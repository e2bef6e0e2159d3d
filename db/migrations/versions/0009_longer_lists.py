"""More may wait beside the text indexes before it is put into them, which costs the writers less.

Revision: 0009, after 0008
"""

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

# Whichever there are: settings choose, and the builder makes them (db/text_index.py, which has the size, too, and tells
# them from somebody's own, whose names may begin in the same way).
EACH = """
DO $$
DECLARE
    found REGCLASS;
BEGIN
    FOR found IN
        SELECT i.indexrelid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
        WHERE i.indrelid = 'text_messages'::regclass AND a.amname = 'gin'
            AND (c.relname = 'text_messages_metadata' OR starts_with(c.relname, 'text_messages_words')
                AND pg_get_indexdef(c.oid) ~ '(to_tsvector|message_words)\\(')
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
