"""What full text reads of a message is cut where parsing it would take minutes.

Revision: 0016, after 0015
"""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

# PostgreSQL's parser looks ahead to the next blank for a host, an address or a path, from each part of a word anew, and
# for the end of a comment to the end of the text: 100,000 characters of "c_d_" or "a@1" without a blank take minutes,
# which no statement has, so that a record with them was never stored, and a search for them never answered. A blank
# after every 255 characters bounds that; so long a word is an address whose parts are found, or nothing to look for.
# It is seen through wherever it stands, in an index or a query, if it is not STRICT
# (https://wiki.postgresql.org/wiki/Inlining_of_SQL_functions), and short texts take the quick way. What it makes of a
# text may change with a migration only where the index of every language is made anew (see db/text_index.py).
#
# message_words is what migration 0002 made the first index of: that index stays, and what is added to it from now on
# is as the queries want it.
UP = r"""
CREATE FUNCTION parsable_text(message TEXT) RETURNS TEXT LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN octet_length(message) <= 1000 THEN message
        ELSE regexp_replace(replace(left(message, 100000), '<!--', ' '), '\S{255}', '\& ', 'g') END;
CREATE OR REPLACE FUNCTION message_words(message TEXT) RETURNS tsvector LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN to_tsvector('english'::regconfig, parsable_text(message));
"""

# With the indexes of it, which the release before makes anew in its own words.
DOWN = """
CREATE OR REPLACE FUNCTION message_words(message TEXT) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN to_tsvector('english'::regconfig, left(message, 100000));
DROP FUNCTION parsable_text CASCADE;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
