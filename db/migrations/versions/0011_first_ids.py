"""Where the vectors of a model begin: its index was planned from the first id of all, which a second set is far above.

Revision: 0011, after 0010
"""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

# A change may be under way, and hang for want of this. Its vectors are looked for first: that takes a second for a
# million, and from the ALTER on everybody waits.
BEGINNINGS = """
DO $$
DECLARE
    coming TEXT := (SELECT model FROM reembedding);
    begins BIGINT := coalesce(
        (SELECT min(id) FROM message_embeddings WHERE model = coming), (SELECT max(id) + 1 FROM message_embeddings), 1);
BEGIN
    ALTER TABLE embedding_models ADD COLUMN first_id BIGINT NOT NULL DEFAULT 1;
    UPDATE embedding_models SET first_id = begins WHERE name = coming;
END $$;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(BEGINNINGS)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE embedding_models DROP COLUMN first_id")
