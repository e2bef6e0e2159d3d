"""What it took to count the vectors of an index part: so seldom it is done again.

Revision: 0013, after 0012
"""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(
        "ALTER TABLE vector_index_parts ADD COLUMN count_seconds DOUBLE PRECISION NOT NULL DEFAULT 0"
    )


def downgrade() -> None:
    op.get_bind().exec_driver_sql("ALTER TABLE vector_index_parts DROP COLUMN count_seconds")
