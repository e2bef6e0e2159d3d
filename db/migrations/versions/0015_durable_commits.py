"""What a persist worker writes to wait for the disk after it has handed on what it stored.

Revision: 0015, after 0014
"""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Its number means nothing (see db.commands.make_durable), so anybody may set it.
    op.get_bind().exec_driver_sql("""
        CREATE SEQUENCE durable_commits;
        GRANT UPDATE ON SEQUENCE durable_commits TO PUBLIC;
    """)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP SEQUENCE durable_commits")
