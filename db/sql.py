"""Pieces that the statements of several modules here have in common."""

from collections.abc import Iterable

# The name of the model whose vectors answer searches, NULL before there is one. A statement by itself, too: of no row
# then.
ACTIVE = "(SELECT name FROM embedding_models WHERE active)"

# Has the commit wait for the disk also where somebody has turned that off for the database or the role.
DURABLE = """set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END,
        true)"""


def array(values: Iterable[object]) -> str:
    """A PostgreSQL array literal of values that need no quoting (uuids and numbers)."""
    return "{" + ",".join(map(str, values)) + "}"


def each_message(columns: str, how: str = "") -> str:
    """What stands behind FROM to read these columns, as `m`, of the messages `:ids`, each looked up by its id.

    For `id = ANY (:ids)` PostgreSQL 18 may skip through all of text_messages_newest, whose second column is the id, in
    a table of some hundred thousand: 100 ms for 2,000 ids instead of 8
    (https://www.postgresql.org/docs/18/indexes-multicolumn.html, "skip scan").
    """
    return f"""unnest(:ids ::uuid[]) AS wanted (id)
        CROSS JOIN LATERAL (SELECT {columns} FROM text_messages WHERE id = wanted.id OFFSET 0 {how}) AS m"""
