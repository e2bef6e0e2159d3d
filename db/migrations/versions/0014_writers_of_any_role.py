"""Whoever may write text_messages reaches the search index: any role, with any search_path.

Revision: 0014, after 0013
"""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

# The triggers write tables that a writer of texts has no rights on, and need not find: `pg_dump --data-only` loads with
# an empty search_path. They run as their owner, in the schema of these tables, and nobody else may hang them on a table
# of his own (https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY).
EACH = """
DO $do$
DECLARE
    home TEXT := (SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = 'text_messages'::regclass);
    function TEXT;
BEGIN
    FOREACH function IN ARRAY ARRAY['inserted', 'updated', 'deleted', 'truncated', 'typed'] LOOP
        function := home || '.text_messages_' || function || '()';
        {each}
    END LOOP;
END $do$
"""
UP = EACH.format(
    each="""
        EXECUTE 'ALTER FUNCTION ' || function || ' SECURITY DEFINER SET search_path = ' || home || ', pg_temp';
        EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || function || ' FROM PUBLIC';
"""
)
DOWN = EACH.format(
    each="""
        EXECUTE 'ALTER FUNCTION ' || function || ' SECURITY INVOKER RESET search_path';
        EXECUTE 'GRANT EXECUTE ON FUNCTION ' || function || ' TO PUBLIC';
"""
)


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
