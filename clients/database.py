"""The connection to PostgreSQL for the commands: read-only, bounded, and its errors are one line."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from clients.terminal import CommandFailed, Unreachable
from db import session
from settings import Settings

STATEMENT_MS = 9_000


@contextmanager
def connect(settings: Settings) -> Iterator[Connection]:
    """A connection of the read-only role, in autocommit: it may be held long. It is to the primary: what a command
    decides by must not lag behind. Raises Unreachable or CommandFailed."""
    url = settings.database_url(reader=True, at_primary=True)
    engine = session.connect_engine(url, "kafka-cli", timeout_ms=STATEMENT_MS)
    try:
        with engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")
    except SQLAlchemyError as error:
        where = f"PostgreSQL at {settings.database_address}:{settings.database_port}"
        reason = f"{where}: {session.first_line(error)}"
        if session.is_outage(error):
            raise Unreachable(f"{reason}; ./status.sh shows what runs (DATABASE_HOST, DATABASE_PORT)") from error
        raise CommandFailed(reason) from error
    finally:
        engine.dispose()
