"""What has to be so before the migrations run: the revision is one of these, the server has what they need, and before
the first one a table text_messages that is there already can become this system's, and no other name is taken.

Each check reads, and raises UnusableDatabase with a sentence that names what is in the way and says what to do.
"""

from collections.abc import Collection
from typing import NamedTuple

from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

PGVECTOR = (0, 8)
ELSEWHERE = "give this system a database of its own (DATABASE_NAME)"

# What a table text_messages that is there already may have, and what it needs; the migrations add the rest.
TEXTS = ("text", "character varying")
TIMES = ("timestamp with time zone", "timestamp(6) with time zone")  # to the microsecond
ADOPTED = {
    "id": ("uuid",),
    "message": TEXTS,
    "created_at": TIMES,
    "processed_at": TIMES,
    "source_id": TEXTS,
    "metadata": ("jsonb",),
}
NEEDED = ("id", "message", "created_at", "processed_at")
MAY_BE_NULL = ("source_id", "metadata")  # of a text that has none

# What the migrations make, and the builder of indexes after them, beside what PostgreSQL names by itself.
RELATIONS = (
    "dead_letters",
    "dead_letters_open",
    "deleted_messages",
    "durable_commits",
    "embedding_failures",
    "embedding_failures_pkey",  # which migration 0005 replaces
    "embedding_jobs",
    "embedding_jobs_available",
    "embedding_models",
    "embedding_models_one_active",
    "message_embeddings",
    "message_embeddings_contents",
    "message_embeddings_ids",
    "reembedding",
    "text_messages_edits",
    "text_messages_metadata",
    "text_messages_newest",
    "text_messages_words",
    "vector_index_parts",
)
FUNCTIONS = (
    "edits_until_now()",
    "forget_embeddings(uuid[])",
    "message_words(text)",
    "parsable_text(text)",
    "queue_embedding(uuid[])",
    "remember_deletions(uuid[],bigint[],integer[],bigint[])",
    "text_messages_deleted()",
    "text_messages_inserted()",
    "text_messages_truncated()",
    "text_messages_typed()",
    "text_messages_updated()",
    "vector_index_progress()",
)
TRIGGERS = (
    "text_messages_deleted",
    "text_messages_inserted",
    "text_messages_truncated",
    "text_messages_typed",
    "text_messages_updated",
)
COLUMNS = ("content_hash", "version_offset", "version_partition", "version_timestamp")

# The table that the first migration would take for its own: it stands where that would make one.
TABLE = "to_regclass(quote_ident(current_schema()) || '.text_messages')"
KINDS = """CASE relkind WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' WHEN 'S' THEN 'sequence' WHEN 'v' THEN 'view'
    WHEN 'm' THEN 'materialized view' WHEN 'f' THEN 'foreign table' WHEN 'c' THEN 'type' ELSE 'table' END"""


class UnusableDatabase(RuntimeError):
    """The database cannot hold this schema; the message says what to change."""


class Column(NamedTuple):
    """A column of the table that is there: `kind` is its type, of a time with its precision. `filled` says that it has
    a default of any sort, `computed` that nobody else may fill it."""

    name: str
    kind: str
    not_null: bool
    filled: bool
    computed: bool
    of_domain: bool


def check_revision(connection: Connection, known: Collection[str], latest: str) -> None:
    """Refuses a revision that no migration here leads to: a later release's, or another program's, which may have the
    same number as one of these."""
    asked = text("""
        SELECT to_regclass('alembic_version') IS NOT NULL, to_regclass('embedding_jobs') IS NOT NULL, EXISTS (
            SELECT FROM pg_attribute
            WHERE attrelid = to_regclass('alembic_version') AND attname = 'version_num' AND NOT attisdropped)
    """)
    there, ours, readable = connection.execute(asked).one()
    found = revisions(connection) if readable else ()
    if (there and not readable) or (found and not ours):
        of_it = f" (revision {', '.join(found)})" if found else ""
        raise UnusableDatabase(f"alembic_version is another program's{of_it}: {ELSEWHERE}")
    if unknown := [each for each in found if each not in known]:
        raise UnusableDatabase(
            f"this database is of a newer release (revision {unknown[0]}): use that one, or go back first, by its "
            f"`python -m db downgrade {latest}`"
        )


def revisions(connection: Connection) -> tuple[str, ...]:
    return MigrationContext.configure(connection).get_current_heads()


def is_new(connection: Connection) -> bool:
    """Whether no migration has run."""
    return not revisions(connection)


def check_server(connection: Connection) -> None:
    """Refuses a database that is not UTF-8, or that has no pgvector 0.8 or later to offer, or where its role does not
    find it. An older one is updated."""
    encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
    if encoding != "UTF8":
        raise UnusableDatabase(f"the database has the encoding {encoding}: create it with ENCODING 'UTF8'")
    installed, offered = connection.execute(
        text("""
            SELECT (SELECT extversion FROM pg_extension WHERE extname = 'vector'),
                (SELECT default_version FROM pg_available_extensions WHERE name = 'vector')
        """)
    ).one()
    if offered is None and installed is None:
        raise UnusableDatabase("this PostgreSQL has no pgvector: install pgvector 0.8 or later on its server")
    if parse(installed or offered) < PGVECTOR:
        if offered is None or parse(offered) < PGVECTOR:
            raise UnusableDatabase(f"pgvector {installed or offered} is too old: install 0.8 or later on the server")
        connection.execute(text("ALTER EXTENSION vector UPDATE"))
    hidden = text("""
        SELECT extnamespace::regnamespace, current_user, has_schema_privilege(extnamespace, 'USAGE'),
            quote_ident(current_database()), current_setting('search_path')
        FROM pg_extension WHERE extname = 'vector' AND to_regtype('halfvec') IS NULL
    """)
    for place, role, may_use, database, path in connection.execute(hidden):
        raise UnusableDatabase(
            f"pgvector is in the schema {place}, where the role {role} does not look: "
            f"ALTER DATABASE {database} SET search_path = {path}, {place}"
            if may_use
            else f"pgvector is in the schema {place}, which the role {role} may not use: "
            f"GRANT USAGE ON SCHEMA {place} TO {role}"
        )


def parse(number: str) -> tuple[int, ...]:
    return tuple(int(part) for part in number.split(".")[:2])


def check_language(connection: Connection, language: str) -> None:
    """Refuses a KEYWORD_LANGUAGE that this server does not have: no word could be searched for."""
    visible = text("SELECT cfgname FROM pg_ts_config WHERE pg_ts_config_is_visible(oid) ORDER BY cfgname")
    known = connection.execute(visible).scalars().all()
    if language not in known:
        raise UnusableDatabase(f"KEYWORD_LANGUAGE={language!r}: this PostgreSQL has {', '.join(known)}")


def check_names(connection: Connection) -> None:
    """Refuses what has a name that the migrations give, or the builder, to something of their own."""
    taken = connection.execute(
        text(f"""
            SELECT {KINDS}, relname FROM pg_class
            WHERE relnamespace = to_regnamespace(quote_ident(current_schema())) AND (
                relname = ANY (:relations) OR starts_with(relname, 'message_embeddings_part_')
                OR relname IN (SELECT 'text_messages_words_' || cfgname FROM pg_ts_config))
            UNION ALL
            SELECT 'type', typname FROM pg_type
            WHERE typnamespace = to_regnamespace(quote_ident(current_schema()))
                AND typname = ANY (:relations || '{{text_messages}}') AND typrelid = 0
            UNION ALL
            SELECT 'function', name FROM unnest(:functions) AS name
            WHERE to_regprocedure(quote_ident(current_schema()) || '.' || name) IS NOT NULL
            UNION ALL
            SELECT 'trigger', tgname FROM pg_trigger WHERE tgrelid = {TABLE} AND tgname = ANY (:triggers)
            UNION ALL
            SELECT 'column', 'text_messages.' || attname FROM pg_attribute
            WHERE attrelid = {TABLE} AND attname = ANY (:columns) AND NOT attisdropped
        """),
        {
            "relations": list(RELATIONS),
            "functions": list(FUNCTIONS),
            "triggers": list(TRIGGERS),
            "columns": list(COLUMNS),
        },
    )
    for kind, name in taken:
        raise UnusableDatabase(f"the {kind} {name} has a name that this system needs: rename it, or {ELSEWHERE}")


def check_adoptable(connection: Connection) -> None:
    """Refuses a text_messages that is there already and cannot become this system's."""
    if not connection.execute(text(f"SELECT {TABLE} IS NOT NULL")).scalar_one():
        return
    check_table(connection)
    check_columns(connection)
    check_key(connection)
    check_rows(connection)


def check_table(connection: Connection) -> None:
    """Refuses what is no plain table that survives a crash, is alone, does what a statement says, and is this role's
    to alter."""
    kind, partitioned, unlogged, related, rule, guarded, owner, ours, role = connection.execute(
        text(f"""
            SELECT {KINDS}, relkind = 'p' OR relispartition, relpersistence = 'u',
                EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid OR inhparent = c.oid),
                (SELECT quote_ident(min(rulename)) FROM pg_rewrite WHERE ev_class = c.oid), relrowsecurity,
                pg_get_userbyid(relowner), pg_has_role(relowner, 'USAGE'), current_user
            FROM pg_class c WHERE oid = {TABLE}
        """)
    ).one()
    if kind != "table":
        raise UnusableDatabase(f"text_messages is a {kind}, not a table: rename it, or {ELSEWHERE}")
    if partitioned:
        raise UnusableDatabase(
            f"text_messages is partitioned, and indexes are built beside its users only on a plain table: {ELSEWHERE}"
        )
    if related:
        raise UnusableDatabase(
            "text_messages inherits from another table, or another one from it, so that its triggers would not see all "
            f"rows: ALTER TABLE ... NO INHERIT, or {ELSEWHERE}"
        )
    if unlogged:
        raise UnusableDatabase(
            "text_messages is unlogged, so that a crash would empty it: ALTER TABLE text_messages SET LOGGED, or "
            f"{ELSEWHERE}"
        )
    if rule:
        raise UnusableDatabase(
            f"text_messages has the rule {rule}, with which no text can be stored: DROP RULE {rule} ON text_messages, "
            f"or {ELSEWHERE}"
        )
    if guarded:
        raise UnusableDatabase(
            "text_messages has row-level security, so that the APIs might not see all rows: ALTER TABLE text_messages "
            f"DISABLE ROW LEVEL SECURITY, or {ELSEWHERE}"
        )
    if not ours:
        raise UnusableDatabase(
            f"text_messages belongs to the role {owner}, and {role} cannot alter it: ALTER TABLE text_messages OWNER "
            f"TO {role}, or {ELSEWHERE}"
        )


def check_columns(connection: Connection) -> None:
    """Refuses columns of types that cannot become this system's own, those that would refuse every text, and the lack
    of one."""
    columns = columns_of(connection)
    has_triggers = connection.execute(  # which may fill a column
        text(f"SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = {TABLE} AND NOT tgisinternal)")
    ).scalar_one()
    for column in columns:
        wanted = ADOPTED.get(column.name)
        if wanted is not None and column.kind not in wanted:
            raise UnusableDatabase(
                f"text_messages.{column.name} is {column.kind}, not {wanted[0]}: change its type, or {ELSEWHERE}"
            )
        if wanted is not None and column.computed:
            raise UnusableDatabase(
                f"text_messages.{column.name} is computed from other columns: make it a plain column, or {ELSEWHERE}"
            )
        if column.name in NEEDED:
            continue
        if column.not_null and (column.name in MAY_BE_NULL or not (column.filled or has_triggers)):
            raise UnusableDatabase(
                f"text_messages.{column.name} takes no NULL, so that no text from the log could be stored: ALTER TABLE "
                f'text_messages ALTER COLUMN "{column.name}" DROP NOT NULL, or {ELSEWHERE}'
            )
        if column.of_domain and not column.filled and not takes_null(connection, column.kind):
            raise UnusableDatabase(
                f"text_messages.{column.name} is of the domain {column.kind}, which takes no NULL, so that no text "
                f'from the log could be stored: ALTER TABLE text_messages ALTER COLUMN "{column.name}" SET DEFAULT '
                f"..., or {ELSEWHERE}"
            )
    if missing := [name for name in NEEDED if name not in {column.name for column in columns}]:
        raise UnusableDatabase(f"text_messages has no column {missing[0]}: {ELSEWHERE}")


def columns_of(connection: Connection) -> list[Column]:
    rows = connection.execute(
        text(f"""
            SELECT attname, format_type(atttypid, CASE WHEN atttypid = 'timestamptz'::regtype THEN atttypmod END),
                attnotnull, atthasdef OR attidentity <> '' OR typdefault IS NOT NULL, attgenerated <> '', typtype = 'd'
            FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
            WHERE attrelid = {TABLE} AND attnum > 0 AND NOT attisdropped ORDER BY attnum
        """)
    )
    return [Column(*row) for row in rows]


def takes_null(connection: Connection, domain: str) -> bool:
    """Whether a column of this domain may be left out: no trigger can fill it, since it is asked before them."""
    try:
        with connection.begin_nested():
            connection.exec_driver_sql(f"SELECT CAST(NULL AS {domain})")
    except DBAPIError:
        return False
    return True


def check_key(connection: Connection) -> None:
    """Refuses an id that may stand in the table twice, or not at all."""
    unique, not_null = connection.execute(
        text(f"""
            SELECT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = attrelid AND i.indkey[0] = attnum AND i.indnkeyatts = 1
                    AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL), attnotnull
            FROM pg_attribute WHERE attrelid = {TABLE} AND attname = 'id'
        """)
    ).one()
    if not unique:
        raise UnusableDatabase(
            f"text_messages.id may stand in it twice: ALTER TABLE text_messages ADD PRIMARY KEY (id), or {ELSEWHERE}"
        )
    if not not_null:
        raise UnusableDatabase(
            f"text_messages.id may be NULL: ALTER TABLE text_messages ALTER COLUMN id SET NOT NULL, or {ELSEWHERE}"
        )


def check_rows(connection: Connection) -> None:
    """Refuses rows without a text. Where there can be none, no row is read."""
    nullable = f"SELECT NOT attnotnull FROM pg_attribute WHERE attrelid = {TABLE} AND attname = 'message'"
    without = "SELECT EXISTS (SELECT FROM text_messages WHERE message IS NULL)"
    if connection.execute(text(nullable)).scalar_one() and connection.execute(text(without)).scalar_one():
        raise UnusableDatabase(
            "text_messages has rows whose message is NULL: give them a text, or DELETE FROM text_messages WHERE "
            "message IS NULL"
        )
