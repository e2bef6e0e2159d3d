"""The vector index behind the writer: its catalogue, an index over the ids of the vectors, and a look at a build.

The parts themselves (db/vector_index.py) are made by the workers, and so is the index over metadata (db/text_index.py):
the migration takes a second on 200,000 rows, and writers are not held up.

Revision: 0003, after 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# vector_index_progress runs as its owner, who is the builder too: the role of the APIs sees nothing of the sessions of
# others.
CATALOGUE = """
CREATE TABLE vector_index_parts (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    model TEXT NOT NULL,
    from_id BIGINT NOT NULL,
    to_id BIGINT NOT NULL,
    state TEXT NOT NULL DEFAULT 'building' CHECK (state IN ('building', 'ready', 'retired')),
    built_rows BIGINT NOT NULL DEFAULT 0,
    live_rows BIGINT NOT NULL DEFAULT 0,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    changed_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    counted_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    build_seconds DOUBLE PRECISION NOT NULL DEFAULT 0,
    CHECK (from_id < to_id)
);

CREATE FUNCTION vector_index_progress() RETURNS TABLE (index_name TEXT, phase TEXT, done BIGINT)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.relname::text, p.phase, p.tuples_done
    FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid
    WHERE p.datname = current_database() AND starts_with(c.relname, 'message_embeddings_part_')
$$;
"""

# What the workers have built goes too, but no index of somebody's own (see db/text_index.py); a build that is under way
# would go on for minutes, so it is ended.
DOWN = """
LOCK TABLE vector_index_parts IN ACCESS EXCLUSIVE MODE;
SELECT pg_terminate_backend(pid) FROM pg_stat_progress_create_index p JOIN pg_class c ON c.oid = p.index_relid
WHERE p.datname = current_database() AND c.relname ~ '^(message_embeddings_part|text_messages_(words|metadata))';
DO $$
DECLARE
    built TEXT;
BEGIN
    FOR built IN SELECT i.indexrelid::regclass FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        WHERE i.indrelid IN ('message_embeddings'::regclass, 'text_messages'::regclass)
            AND (c.relname ~ '^(message_embeddings_part_|text_messages_metadata$)'
                OR c.relname ~ '^text_messages_words_' AND pg_get_indexdef(c.oid) ~ '(to_tsvector|message_words)\\(')
    LOOP
        EXECUTE 'DROP INDEX IF EXISTS ' || built;
    END LOOP;
END $$;
DROP INDEX message_embeddings_ids;
DROP FUNCTION vector_index_progress;
DROP TABLE vector_index_parts;
CREATE INDEX IF NOT EXISTS text_messages_words ON text_messages USING gin (message_words(message));
"""


def upgrade() -> None:
    # The index first: what is in this block is committed at once, and has to be done again after a crash.
    with op.get_context().autocommit_block():
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS message_embeddings_ids")
        op.execute("CREATE INDEX CONCURRENTLY message_embeddings_ids ON message_embeddings (id)")
    op.get_bind().exec_driver_sql(CATALOGUE)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
