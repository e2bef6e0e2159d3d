"""Bringing a database to a revision: the Alembic migrations and the read-only role of the APIs."""

import logging
import time
from pathlib import Path

import psycopg2
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from psycopg2 import errorcodes, sql
from psycopg2.errors import DeadlockDetected, LockNotAvailable
from sqlalchemy import Connection, event, text
from sqlalchemy.exc import OperationalError

from db import preconditions, session, text_index
from db.preconditions import UnusableDatabase
from settings import Settings

MIGRATION_LOCK = 7_263_511_901
# While a migration waits for a table, everybody who comes after it waits too; the pause between two tries lets them
# through.
LOCK_MS = 1_000
LOCK_PAUSE_SECONDS = 1.0
# What PostgreSQL says of a role that somebody else has made or changed at the same time: the first is its "tuple
# concurrently updated".
IN_THE_WAY = (errorcodes.INTERNAL_ERROR, errorcodes.UNIQUE_VIOLATION, errorcodes.DUPLICATE_OBJECT)
GRANT_TRIES = 10

log = logging.getLogger(__name__)


def configuration(connection: Connection | None = None) -> Config:
    # Not from alembic.ini: its %(here)s fails for a path that has a % in it.
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def latest() -> str:
    """The revision that `upgrade` goes to."""
    return str(ScriptDirectory.from_config(configuration()).get_current_head())


def check(connection: Connection, settings: Settings) -> None:
    """Raises UnusableDatabase where the migrations could not run, or not to the end."""
    scripts = ScriptDirectory.from_config(configuration())
    preconditions.check_revision(connection, {each.revision for each in scripts.walk_revisions()}, latest())
    preconditions.check_server(connection)
    preconditions.check_language(connection, settings.keyword_language)
    if preconditions.is_new(connection):
        preconditions.check_adoptable(connection)
        preconditions.check_names(connection)


def upgrade(settings: Settings, revision: str = "head") -> str:
    """Runs the migrations that are missing; two at once wait for each other. Returns the revision reached."""
    return migrate(settings, revision, command.upgrade)


def downgrade(settings: Settings, revision: str) -> str:
    return migrate(settings, revision, command.downgrade)


def migrate(settings: Settings, revision: str, direction: object) -> str:
    engine = session.connect_engine(settings.database_url(), "migrate", timeout_ms=0)
    try:
        with engine.connect() as connection:
            # A migration that builds an index beside its users waits for them as long as it takes; nobody waits for it.
            connection.execute(text("SET lock_timeout = 0"))
            wait_for_turn(connection)
            try:
                check(connection, settings)
                connection.commit()
                while not migrated(connection, revision, direction):
                    time.sleep(LOCK_PAUSE_SECONDS)
                drop_unwanted(connection, settings)
                grant_all(connection, settings)
                check_reader(connection, settings)
                return str(MigrationContext.configure(connection).get_current_revision() or "base")
            except CommandError as error:
                raise UnusableDatabase(f"{error} (revisions are in db/migrations/versions)") from error
            finally:
                connection.rollback()
                connection.execute(text("SELECT pg_advisory_unlock(:key)"), {"key": MIGRATION_LOCK})
                connection.commit()
    finally:
        engine.dispose()


def migrated(connection: Connection, revision: str, direction: object) -> bool:
    """One try; returns whether it got to the end. A statement that waits for a table lets everybody else wait behind
    it, so it gives up after a moment and is tried again: what was done by then, migration by migration, stays."""

    def bound_waits(begun: Connection) -> None:  # without an effect outside of a transaction: see above
        begun.connection.cursor().execute(f"SET LOCAL lock_timeout = {LOCK_MS}")

    event.listen(connection, "begin", bound_waits)
    try:
        direction(configuration(connection), revision)  # type: ignore[operator]
        connection.commit()
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
            raise
        connection.rollback()
        log.warning("somebody uses a table that the migration has to alter: it is tried again")
        return False
    finally:
        event.remove(connection, "begin", bound_waits)
    return True


def drop_unwanted(connection: Connection, settings: Settings) -> None:
    """Drops the text indexes that no setting asks for, while there is no text: the builder comes seconds later, and the
    first burst would pay for them until then. If somebody uses the table, they are left to the builder."""
    try:
        connection.execute(text(f"SET LOCAL lock_timeout = {LOCK_MS}"))
        text_index.drop_unwanted(connection, settings)
        connection.commit()
    except OperationalError as error:
        if not isinstance(error.orig, LockNotAvailable | DeadlockDetected):
            raise
        connection.rollback()


def wait_for_turn(connection: Connection) -> None:
    """Takes the lock of the migrations. Not by waiting in a statement: its snapshot would in turn hold up the CREATE
    INDEX CONCURRENTLY of whoever has the lock."""
    while not connection.execute(text("SELECT pg_try_advisory_lock(:key)"), {"key": MIGRATION_LOCK}).scalar_one():
        connection.commit()
        time.sleep(0.2)
    connection.commit()


def current(settings: Settings) -> str:
    engine = session.connect_engine(settings.database_url(), "migrate")
    try:
        with engine.connect() as connection:
            return str(MigrationContext.configure(connection).get_current_revision() or "base")
    finally:
        engine.dispose()


def grant_all(connection: Connection, settings: Settings) -> None:
    """Sets the rights of all roles. These are the whole server's, and so is what is written of the role of the APIs: if
    another installation on the server is migrated at this moment, it is in the way, and is let through."""
    for left in reversed(range(GRANT_TRIES)):
        try:
            guard_triggers(connection)
            let_all_wait_for_the_disk(connection)
            grant_reader(connection, settings)
            grant_functions(connection, settings)
            connection.commit()
            return
        except psycopg2.Error as error:
            connection.rollback()
            if not left or error.pgcode not in IN_THE_WAY:
                raise
        time.sleep(LOCK_PAUSE_SECONDS)


def guard_triggers(connection: Connection) -> None:
    """Keeps others from attaching the triggers' functions, which run as their owner, to tables of their own. Migration
    0014 does so too, but a restore without privileges forgets it. Functions of somebody's own triggers are his."""
    connection.execute(
        text("""
            DO $$
            DECLARE
                found REGPROCEDURE;
            BEGIN
                FOR found IN SELECT DISTINCT p.oid::regprocedure FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid
                    WHERE t.tgrelid = to_regclass('text_messages') AND p.prosecdef
                        AND starts_with(p.proname, 'text_messages_')
                LOOP
                    EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || found || ' FROM PUBLIC';
                END LOOP;
            END $$
        """)
    )


def let_all_wait_for_the_disk(connection: Connection) -> None:
    """As migration 0015, for those who work with a role of their own: a restore without privileges forgets it."""
    if connection.execute(text("SELECT to_regclass('durable_commits')")).scalar_one() is not None:
        connection.execute(text("GRANT UPDATE ON SEQUENCE durable_commits TO PUBLIC"))


def grant_reader(connection: Connection, settings: Settings) -> None:
    """Creates the role of the APIs if it is missing, and lets it read all tables and write none. A table of somebody
    else's beside these is not ours to grant."""
    if settings.database_reader_user == settings.database_user:
        return
    role = sql.Identifier(settings.database_reader_user)
    values = {"role": role, "password": sql.Literal(settings.database_reader_password)}
    values["database"] = sql.Identifier(settings.database_name)
    # Asked through SQLAlchemy, so that its transaction has begun and the caller's commit holds for the cursor's work
    # too.
    known = connection.execute(
        text("SELECT 1 FROM pg_roles WHERE rolname = :role"), {"role": settings.database_reader_user}
    ).one_or_none()
    # Where the migrations have made the tables; and pgvector's may be another one, and not the owner's to grant.
    home = "SELECT relnamespace FROM pg_class WHERE oid = to_regclass('text_messages')"
    place = connection.execute(text(f"SELECT nspname FROM pg_namespace WHERE oid = ({home})")).scalar() or "public"
    values["home"] = sql.Identifier(place)
    vectors = connection.execute(
        text("""
            SELECT nspname FROM pg_namespace n JOIN pg_extension ON extnamespace = n.oid
            WHERE extname = 'vector' AND has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
        """)
    ).scalar()
    values["vectors"] = sql.Identifier(vectors) if vectors else values["home"]
    tables = connection.scalars(
        text("""
            SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
            WHERE nspname = :home AND relkind IN ('r', 'p', 'v', 'm', 'f')
                AND has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')
        """),
        {"home": place},
    )
    cursor = connection.connection.cursor()
    if known is None:
        cursor.execute(sql.SQL("CREATE ROLE {role} LOGIN PASSWORD {password}").format(**values))
    for grant in (
        "ALTER ROLE {role} LOGIN PASSWORD {password}",
        "ALTER ROLE {role} SET default_transaction_read_only = on",
        "GRANT CONNECT ON DATABASE {database} TO {role}",
        "GRANT USAGE ON SCHEMA {home}, {vectors} TO {role}",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA {home} GRANT SELECT ON TABLES TO {role}",
    ):
        cursor.execute(sql.SQL(grant).format(**values))
    for table in tables:
        cursor.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(place, table), role))


def grant_functions(connection: Connection, settings: Settings) -> None:
    """Lets who writes texts call what the index of words calls for him, and the role of the APIs what searches call.
    Anybody may, unless somebody has taken that from PUBLIC, perhaps from all functions to come as well (ALTER DEFAULT
    PRIVILEGES). What another role has to grant is left to it."""
    missing = connection.execute(
        text("""
            SELECT p.oid::regprocedure::text, who FROM pg_proc p CROSS JOIN (
                SELECT 'public' AS who, array_remove(ARRAY[
                    to_regprocedure('parsable_text(text)'), to_regprocedure('message_words(text)')]::oid[], NULL)
                    AS needed
                UNION ALL
                SELECT :reader, array_remove(array_agg(objid) || to_regprocedure('vector_index_progress()')::oid, NULL)
                FROM pg_depend JOIN pg_extension e ON e.oid = refobjid AND extname = 'vector'
                WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass) AS each
            WHERE p.oid = ANY (needed) AND NOT has_function_privilege(who, p.oid, 'EXECUTE')
                AND has_function_privilege(p.oid, 'EXECUTE WITH GRANT OPTION')
        """),
        {"reader": settings.database_reader_user},
    ).all()
    cursor = connection.connection.cursor()
    for function, who in missing:
        role = sql.SQL("PUBLIC") if who == "public" else sql.Identifier(who)
        cursor.execute(sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}").format(sql.SQL(function), role))


def check_reader(connection: Connection, settings: Settings) -> None:
    """Raises UnusableDatabase where the role of the APIs does not find the tables, or pgvector, and this one does: a
    search_path may be set for one of the two alone."""
    asked = text("SELECT to_regclass('text_messages') IS NOT NULL, to_regtype('halfvec') IS NOT NULL")
    table, vectors = connection.execute(asked).one()
    engine = session.connect_engine(settings.database_url(reader=True, at_primary=True), "migrate")
    try:
        with engine.connect() as reader:
            found = reader.execute(asked).one()
    except OperationalError as error:  # it may have to come from elsewhere
        log.warning("the role %s could not be tried: %s", settings.database_reader_user, session.first_line(error))
        return
    finally:
        engine.dispose()
    if (table and not found[0]) or (vectors and not found[1]):
        is_table = bool(table and not found[0])
        what = "the table text_messages" if is_table else "the type halfvec of pgvector"
        place, role, may_use, database, path = connection.execute(
            text("""
                SELECT place::regnamespace, quote_ident(:reader), has_schema_privilege(:reader, place, 'USAGE'),
                    quote_ident(current_database()), current_setting('search_path')
                FROM (SELECT CASE WHEN :is_table THEN (SELECT relnamespace FROM pg_class
                            WHERE oid = to_regclass('text_messages'))
                        ELSE (SELECT typnamespace FROM pg_type WHERE oid = to_regtype('halfvec')) END AS place) AS it
            """),
            {"reader": settings.database_reader_user, "is_table": is_table},
        ).one()
        raise UnusableDatabase(
            f"the role {role} does not look into the schema {place} for {what}: "
            f"ALTER ROLE {role} IN DATABASE {database} SET search_path = {path}"
            if may_use
            else f"the role {role} may not use the schema {place}, of {what}: GRANT USAGE ON SCHEMA {place} TO {role}"
        )
