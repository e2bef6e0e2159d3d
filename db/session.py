"""Connections to PostgreSQL: how they are made, what bounds them, and which of their errors mean "try again".

No connection is made at import. Every wait has an end: connecting 5 s, a statement 30 s, a lock 5 s, a peer that no
longer answers 10 s, for the server too, and where TCP does not see that, 5 s more than the statement may take
(db.deadline); so a half-open connection never holds a task for long, nor a lock.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import psycopg2
import simplejson
from psycopg2 import errorcodes
from psycopg2.extras import register_default_jsonb
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.dialects.postgresql import psycopg2 as psycopg2_dialect
from sqlalchemy.exc import DBAPIError, DisconnectionError, PendingRollbackError, ResourceClosedError, TimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from db.deadline import BoundedConnection, BoundedCursor
from records import whole_number

T = TypeVar("T")

CONNECT_SECONDS = 5
STATEMENT_MS = 30_000
LOCK_MS = 5_000
IDLE_IN_TRANSACTION_MS = 30_000
# Of both ends of a connection. The server's would else keep what a machine that has lost its power held, such as the
# lock of who builds indexes, for the two hours after which a kernel begins to ask.
KEEPALIVES_IDLE = 5
KEEPALIVES_INTERVAL = 2
KEEPALIVES_COUNT = 3
UNANSWERED_MS = 10_000
# A transaction's time-out ends the session without telling the client why: a statement's own has to come first.
TRANSACTION_MORE_MS = 1_000
# The server's own time-out comes first, so that nothing is still at work there when the client gives up.
LATE_ANSWER_MS = 5_000

# https://www.postgresql.org/docs/18/errcodes-appendix.html: these say nothing against the data, only "not now".
TRANSIENT_CLASSES = frozenset({"08", "40", "53", "55", "57", "58"})
# Of these the session may be the cause: a standby's, or with the read-only default, search_path or role that somebody
# had set for the database when it began, and has taken back. Only a new one learns of that.
SESSION_CODES = frozenset(
    {
        errorcodes.READ_ONLY_SQL_TRANSACTION,  # a primary that has become a standby
        errorcodes.INSUFFICIENT_PRIVILEGE,
        errorcodes.UNDEFINED_TABLE,  # the migrations have not run yet
        errorcodes.UNDEFINED_COLUMN,
        errorcodes.UNDEFINED_FUNCTION,
        errorcodes.UNDEFINED_OBJECT,
    }
)
TRANSIENT_CODES = SESSION_CODES | frozenset(
    {
        errorcodes.INVALID_AUTHORIZATION_SPECIFICATION,
        errorcodes.INVALID_PASSWORD,
        errorcodes.INVALID_CATALOG_NAME,
        "25P03",  # idle_in_transaction_session_timeout
        "25P04",  # transaction_timeout
    }
)


# Metadata keeps every digit of its numbers: they come as Decimal.
exact_json = partial(simplejson.loads, use_decimal=True, parse_int=whole_number)


def connect_engine(
    url: str,
    name: str,
    *,
    pool_size: int = 1,
    timeout_ms: int = STATEMENT_MS,
    autocommit: bool = False,
    trusted_seconds: float = 0.0,
) -> Engine:
    """An engine whose connections are named `name` in pg_stat_activity and bounded as the module says.

    `timeout_ms` bounds a statement (and on PostgreSQL 17 and later, with a second more, also a whole transaction); 0
    lifts both bounds. With `autocommit` no transaction is opened around single statements, which would cost two round
    trips each.

    A connection that comes out of the pool is first asked for a sign of life, so that one that a restart of the server
    has closed is replaced. One that was in use within the last `trusted_seconds` is not asked: its user has to be ready
    to try again.
    """
    options = f"-c statement_timeout={timeout_ms} -c idle_in_transaction_session_timeout={IDLE_IN_TRANSACTION_MS}"
    engine = create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=10,
        pool_use_lifo=True,
        hide_parameters=True,  # they are texts, and an error that is logged would quote them
        connect_args={
            "application_name": name,
            "connection_factory": BoundedConnection,
            "cursor_factory": BoundedCursor,
            "connect_timeout": CONNECT_SECONDS,
            # Not as somebody has set it for the database, its role or the environment: COPY is given UTF-8.
            "client_encoding": "utf8",
            # With a snapshot of its beginning, who has waited for a deletion would not see it, and bring the text back.
            "options": f"{options} -c lock_timeout={LOCK_MS} -c timezone=UTC "
            "-c default_transaction_isolation=read\\ committed "
            # Else a backslash, a NULL in an array and what tells one index from another may mean something else.
            "-c standard_conforming_strings=on -c array_nulls=on -c quote_all_identifiers=off "
            # Vectors and scores are read as text, and a word's texts are all there.
            "-c extra_float_digits=1 -c gin_fuzzy_search_limit=0 "
            f"-c tcp_keepalives_idle={KEEPALIVES_IDLE} -c tcp_keepalives_interval={KEEPALIVES_INTERVAL} "
            f"-c tcp_keepalives_count={KEEPALIVES_COUNT} -c tcp_user_timeout={UNANSWERED_MS}",
            "keepalives_idle": KEEPALIVES_IDLE,
            "keepalives_interval": KEEPALIVES_INTERVAL,
            "keepalives_count": KEEPALIVES_COUNT,
            "tcp_user_timeout": UNANSWERED_MS,
        },
        # As an option of each execution it would be set and taken back every time, two round trips more.
        **({"isolation_level": "AUTOCOMMIT"} if autocommit else {}),
    )
    install_listeners(engine, timeout_ms, trusted_seconds)
    return engine


def install_listeners(engine: Engine, timeout_ms: int, trusted_seconds: float) -> None:
    """What is done with each connection when it is made, taken out of the pool and put back."""

    @event.listens_for(engine, "connect")
    def prepare(connection: BoundedConnection, _record: object) -> None:
        register_default_jsonb(connection, loads=exact_json)
        if connection.info.server_version >= 170_000:
            most = timeout_ms + TRANSACTION_MORE_MS if timeout_ms else 0  # whatever somebody has set for the database
            with connection.cursor() as cursor:
                cursor.execute(f"SET transaction_timeout = {most}")
            connection.commit()

    @event.listens_for(engine, "checkout")
    def allow_work(connection: BoundedConnection, record: ConnectionPoolEntry, _proxy: object) -> None:
        if connection.refused in SESSION_CODES:
            raise DisconnectionError  # the pool makes a new one
        if time.monotonic() - record.info.get("used_at", float("inf")) > trusted_seconds:
            ask_for_life(engine, connection)
        connection.seconds = (timeout_ms + LATE_ANSWER_MS) / 1000 if timeout_ms else None

    @event.listens_for(engine, "checkin")
    def note_use(connection: BoundedConnection | None, record: ConnectionPoolEntry) -> None:
        if connection is not None:
            record.info["used_at"] = time.monotonic()


def ask_for_life(engine: Engine, connection: BoundedConnection) -> None:
    """Raises DisconnectionError, on which the pool makes a new connection, if the server does not answer."""
    connection.seconds = UNANSWERED_MS / 1000  # no more than TCP has for an answer
    try:
        engine.dialect.do_ping(connection)  # type: ignore[arg-type]
    except psycopg2.Error as error:
        raise DisconnectionError from error


@contextmanager
def autocommit_connection(engine: Engine) -> Iterator[Connection]:
    """A connection on which each execute is a transaction of its own, with all statements that its text has: one round
    trip instead of three or more (https://www.postgresql.org/docs/18/protocol-flow.html, "Multiple Statements in a
    Simple Query"). Only the last statement's rows come back. What SET LOCAL and set_config set ends with it."""
    with engine.connect() as connection:
        driver = driver_of(connection)
        driver.autocommit = True
        try:
            yield connection
        finally:
            if driver.closed:
                connection.invalidate()  # SQLAlchemy does not learn what a cursor of the driver was told
            else:
                driver.autocommit = False


def driver_of(connection: Connection) -> "psycopg2.extensions.connection":
    """psycopg2's own connection: one session of the server, from its beginning to its end."""
    return cast("psycopg2.extensions.connection", connection.connection.dbapi_connection)


def for_driver(statement: str) -> str:
    """A statement with :names as `ask_driver` takes it."""
    return str(text(statement).compile(dialect=psycopg2_dialect.dialect()))  # type: ignore[no-untyped-call]


def ask_driver(connection: Connection, statement: str, values: Mapping[str, object]) -> list[tuple[Any, ...]]:
    """The rows of a statement that psycopg2 sends, without SQLAlchemy, whose own work is more than half of what a
    client spends on a single text. Raises psycopg2's errors."""
    with driver_of(connection).cursor() as cursor:
        cursor.execute(statement, values)
        return cursor.fetchall()


def first_line(error: BaseException) -> str:
    """The first line of what the server said, or of the error itself; no statement and no values, which may be
    anybody's text."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def was_canceled(error: BaseException) -> bool:
    """Whether the server has canceled a statement, by statement_timeout or for somebody else (pg_cancel_backend): it is
    there, and if that was for the time it took, asking for less can help."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg2.Error) and cause.pgcode == errorcodes.QUERY_CANCELED


def has_answered(error: BaseException) -> bool:
    """Whether what is shown of the error is PostgreSQL's own, in a session or instead of one: so it is running."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    return isinstance(cause, psycopg2.Error) and (cause.pgcode is not None or "FATAL:" in first_line(cause))


def in_time(connection: Connection, read: Callable[[Connection], T], otherwise: Callable[[Connection], T]) -> T:
    """What `read` returns or, if that takes longer than a statement may, what `otherwise` returns. For a connection in
    autocommit: a transaction would have failed."""
    try:
        return read(connection)
    except DBAPIError as error:
        if not was_canceled(error):
            raise
        return otherwise(connection)


def is_outage(error: BaseException) -> bool:
    """Whether trying again later can help: the server is away, busy, locked, shutting down or not set up yet.

    False for what the data itself causes (too large a value, a constraint): that never passes.
    """
    if isinstance(error, TimeoutError | PendingRollbackError | ResourceClosedError):
        return True
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg2.Error):
        return False
    code = cause.pgcode
    if code is None:
        # Exactly DatabaseError is what psycopg2 says of a server that went away in the middle of a COPY.
        lost = isinstance(cause, psycopg2.OperationalError | psycopg2.InterfaceError)
        return lost or type(cause) is psycopg2.DatabaseError
    if code.startswith("XX"):  # a damaged page or a catalog in change; but a value too large has such a code too
        return "invalid memory alloc request size" not in str(cause)
    return code in TRANSIENT_CODES or code[:2] in TRANSIENT_CLASSES
