"""The triggers of edits read no table whole, and compare many edited rows by a hash, whatever was edited before.

Revision: 0012, after 0011
"""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

# In a table that was never analysed each id of an array counts as a two-hundredth of it, so for some hundred edits all
# vectors were read. And a session plans the look at old and new rows once, with the numbers of the first edit: after
# one of a single row, two thousand rows were compared with two thousand each.
UP = """
ALTER FUNCTION forget_embeddings(UUID[]) SET enable_seqscan = off;
ALTER FUNCTION text_messages_updated() SET enable_nestloop = off;
"""

DOWN = """
ALTER FUNCTION forget_embeddings(UUID[]) RESET enable_seqscan;
ALTER FUNCTION text_messages_updated() RESET enable_nestloop;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
