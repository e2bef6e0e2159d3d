"""A second set of vectors, of another model, that is made while the first one answers searches.

Revision: 0005, after 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# embedding_models.settings are the settings that make the model's provider, without secrets; instead_of lists those
# that it has replaced by command. followed_by stands in the active row, where whoever stores a vector looks anyway:
# the model whose vectors are made too, and follow_now whether without delay.
#
# embedding_jobs.model is empty for the active model, whichever that is.
#
# reembedding has one row while there is, or was, a change: what `model` is depends on the state (db/reembedding.py).
UP = """
ALTER TABLE embedding_models
    ADD COLUMN settings JSONB,
    ADD COLUMN instead_of JSONB NOT NULL DEFAULT '[]',
    ADD COLUMN followed_by TEXT,
    ADD COLUMN follow_now BOOLEAN NOT NULL DEFAULT FALSE;

ALTER TABLE embedding_jobs ADD COLUMN model TEXT;

ALTER TABLE embedding_failures
    DROP CONSTRAINT embedding_failures_pkey,
    ADD PRIMARY KEY (message_id, model);

CREATE TABLE reembedding (
    id BOOLEAN PRIMARY KEY DEFAULT TRUE CHECK (id),
    state TEXT NOT NULL CHECK (state IN ('running', 'closing', 'stopped', 'switched', 'dropping')),
    model TEXT NOT NULL,
    old_model TEXT,
    undoing BOOLEAN NOT NULL DEFAULT FALSE,
    scanned_to UUID,
    scanned BOOLEAN NOT NULL DEFAULT FALSE,
    problem TEXT,
    problem_at TIMESTAMP WITH TIME ZONE,
    started_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp(),
    changed_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT clock_timestamp()
);
"""

# Only the active model's vectors mean anything to what comes before.
DOWN = """
DROP TABLE reembedding;
DELETE FROM message_embeddings e USING embedding_models m WHERE m.name = e.model AND NOT m.active;
DELETE FROM embedding_failures f USING embedding_models m WHERE m.name = f.model AND NOT m.active;
DELETE FROM embedding_failures f USING embedding_failures g
    WHERE g.message_id = f.message_id AND (g.failed_at, g.model) > (f.failed_at, f.model);
ALTER TABLE embedding_failures
    DROP CONSTRAINT embedding_failures_pkey,
    ADD PRIMARY KEY (message_id);
DELETE FROM embedding_jobs WHERE model IS NOT NULL;
ALTER TABLE embedding_jobs DROP COLUMN model;
ALTER TABLE embedding_models
    DROP COLUMN settings,
    DROP COLUMN instead_of,
    DROP COLUMN followed_by,
    DROP COLUMN follow_now;
"""


def upgrade() -> None:
    op.get_bind().exec_driver_sql(UP)


def downgrade() -> None:
    op.get_bind().exec_driver_sql(DOWN)
