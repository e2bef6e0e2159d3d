"""Full-text search over the messages.

`message_words` is what the index holds and what a query must use. Only the first 100,000 characters count: a tsvector
is limited to 1 MB, and a longer text must not be refused for it. A table that was adopted may have texts over which the
parser takes minutes: they are cut as migration 0016 says, which has the same expression.

Revision: 0002, after 0001
"""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.get_bind().exec_driver_sql(r"""
        CREATE FUNCTION message_words(message TEXT) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
            RETURN to_tsvector('english'::regconfig, CASE WHEN octet_length(message) <= 1000 THEN message
                ELSE regexp_replace(replace(left(message, 100000), '<!--', ' '), '\S{255}', '\& ', 'g') END);
        CREATE INDEX text_messages_words ON text_messages USING gin (message_words(message));
    """)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP INDEX IF EXISTS text_messages_words; DROP FUNCTION message_words")
