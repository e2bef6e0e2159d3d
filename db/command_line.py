"""What `python -m db` takes, what it does, and how it ends."""

import argparse
import sys

import psycopg2
from sqlalchemy.exc import SQLAlchemyError

import settings as configuration
import streams
from db import console_commands, outbox, output, reembed_command, schema, session
from db.preconditions import UnusableDatabase
from settings import Settings

ABOUT = "The database: its schema, its embedding model, and messages without a vector."
EXIT_CODES = "exit codes: 0 done, 1 not possible as things are, 2 wrong usage or setting, 130 interrupted"
MISSING_PIECE = 20_000  # messages, each looked up: well under a second


def main() -> int:
    streams.prepare()
    try:
        try:
            given = parse()
        except SystemExit as ended:  # after --help or wrong usage
            output.flush()
            return streams.exit_code(ended)
        return carry_out(given)
    except output.Unwritten as error:
        return fail(str(error))
    except KeyboardInterrupt:
        return streams.INTERRUPTED


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m db", description=ABOUT, epilog=EXIT_CODES)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def add(name: str, about: str, description: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=about, description=description, epilog=EXIT_CODES)

    upgrade = add(
        "upgrade",
        "run the migrations that are missing",
        "Runs the migrations that are missing, and sets up the role that reads only.",
    )
    upgrade.add_argument("revision", nargs="?", default="head", help="the last one to run; without it all are run")
    downgrade = add("downgrade", "undo migrations", "Undoes migrations. What they had added is dropped.")
    downgrade.add_argument("revision", help='the last one that stays; "base" undoes all of them')
    add("current", "show the revision", "Shows the revision that the database is at.")
    reembed_command.add_to(commands)
    add(
        "retry-failed",
        "embed once more the messages that are marked as failed",
        "Queues all messages again that are marked as failed.",
    )
    add(
        "embed-missing",
        "embed the messages whose vectors somebody has deleted, or not restored",
        "Queues all messages that have no vector, though nothing is queued or marked as failed.",
    )
    return parser.parse_args()


def carry_out(given: argparse.Namespace) -> int:
    """Returns the exit code. Raises output.Unwritten."""
    try:
        chosen = configuration.load()
        if given.command == "upgrade":
            output.say(f"database: revision {schema.upgrade(chosen, given.revision)}")
        elif given.command == "downgrade":
            output.say(f"database: revision {schema.downgrade(chosen, given.revision)}")
        elif given.command == "current":
            output.say(f"database: revision {schema.current(chosen)}")
        elif given.command == "reembed":
            return reembed_command.run(given, chosen)
        elif given.command == "embed-missing":
            output.say(f"{embed_missing(chosen)} messages had no vectors, and are queued")
        else:
            output.say(f"trying {retry_failed(chosen)} messages again")
    except configuration.InvalidSetting as error:
        return fail(str(error), streams.WRONG_USAGE)
    except UnusableDatabase as error:
        return fail(str(error))
    except (SQLAlchemyError, psycopg2.Error) as error:
        where = f"{chosen.database_address}:{chosen.database_port}"
        is_away = session.is_outage(error) and not session.has_answered(error)
        hint = "is it running? (DATABASE_HOST, DATABASE_PORT)" if is_away else unchanged(given.command)
        return fail(f"PostgreSQL at {where}: {session.first_line(error)}; {hint}")
    return 0


def unchanged(command: str) -> str:
    """What a command has left that the database has refused."""
    by_steps = command in ("upgrade", "downgrade", "embed-missing")
    return "what was done before stays, and it may be run again" if by_steps else "nothing was changed"


def retry_failed(settings: Settings) -> int:
    """Queues every message again whose embedding has failed; returns how many."""
    engine = session.connect_engine(settings.database_url(), "retry-failed")
    try:
        with engine.begin() as connection:
            return console_commands.retry_failures(connection, None, until="infinity", limit=None)
    finally:
        engine.dispose()


def embed_missing(settings: Settings) -> int:
    """Queues every message that has no vector of its text, though nothing is queued or marked as failed; returns how
    many."""
    engine = session.connect_engine(settings.database_url(), "embed-missing")
    queued, cursor, more = 0, None, True
    try:
        while more:
            with engine.begin() as connection:
                found, cursor = outbox.queue_missing(connection, cursor, limit=MISSING_PIECE)
            queued += found
            more = cursor is not None
        return queued
    finally:
        engine.dispose()


def fail(message: str, code: int = streams.FAILED) -> int:
    print(f"db: {message}", file=sys.stderr)
    return code
