"""`python -m db reembed`: asks for a change to another model, and watches it. The workers carry it out."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sqlalchemy import Connection

import streams
from db import output, providers, reembedding, reembedding_status, session
from embedder import EmbedderUnavailable, ModelError, load_provider
from settings import InvalidSetting, Settings

ACTIONS = ("start", "status", "stop", "resume", "undo", "forget-old")
WATCH_SECONDS = 1.0
COUNT_AGAIN_SECONDS = 300.0  # after a count that took too long, which keeps PostgreSQL busy for half a minute

# What is said after Ctrl-C, depending on how far the command has come.
NOTHING = "nothing was changed"
IN_DOUBT = "whether it was done, `python -m db reembed status` says"
GOES_ON = "it goes on all the same; `python -m db reembed stop` stops a change, but no deletion"
OVER = "there was nothing left to wait for"
STOPPED = "it is stopped; `python -m db reembed resume` goes on"

UNCOUNTED = "; counting takes too long in so large a table"

ACTS = {
    "stop": reembedding.stop,
    "resume": reembedding.resume,
    "undo": reembedding.undo,
    "forget-old": reembedding.forget_old,
}

EPILOG = """\
actions:
  start       embed every message with another model too, and switch to it
              when all are done
  status      how far that is
  stop        leave it as it is; what is done is kept
  resume      go on with what was stopped
  undo        before the switch: delete the new vectors; after it: go back to
              the old ones
  forget-old  after the switch: delete the old vectors

Searches use the old model until the switch. Everything is kept in PostgreSQL, and the workers do the work: this \
command may be ended at any time. A remote provider's key is taken from the environment of whoever embeds, and stored \
nowhere.

exit codes: 0 done (or, without --wait, asked for), 1 not possible as things are, 2 wrong usage or setting, \
130 interrupted

  python -m db reembed --provider minilm
  python -m db reembed --provider openai --set OPENAI_MODEL=some-model --no-wait
"""


class Failed(Exception):
    """The command cannot do what was asked; the message says why, and what to do."""


class Unasked(Failed):
    """It asks before it deletes, and there is nobody to ask."""


def add_to(commands: Any) -> None:
    parser = commands.add_parser(
        "reembed",
        help="change the embedding model while everything runs",
        description="Changes the embedding model while everything runs.",
        epilog=EPILOG,
        formatter_class=streams.HelpFormatter,
    )
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="start")
    parser.add_argument("--provider", help="of the new model; without it that of the settings")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the new provider: OPENAI_MODEL=...",
    )
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="wait until it is done, with a bar; on a terminal that is the default",
    )
    parser.add_argument("--yes", action="store_true", help="delete vectors without asking")
    parser.add_argument("--json", action="store_true", help="print the state as JSON, as GET /status has it")


def run(given: argparse.Namespace, settings: Settings) -> int:
    """Raises what the database says, and output.Unwritten."""
    if given.action != "start" and (given.provider or given.set):
        print("db: --provider and --set are for starting a change", file=sys.stderr)
        return streams.WRONG_USAGE
    said = NOTHING
    try:
        # What was typed is checked first: it is just as wrong while the database is away.
        new = asked_for(given, settings) if given.action == "start" else None
        with connected(settings) as connection:
            if given.action == "status":
                wait = bool(given.wait)
            else:
                confirmed = ask_before_deleting(given, connection)
                with transaction(settings) as changing:
                    carry_out(given.action, new, changing, confirmed)
                    said = IN_DOUBT
                said = STOPPED if given.action == "stop" else GOES_ON
                wait = sys.stderr.isatty() if given.wait is None else given.wait
            if wait and given.action != "stop":
                said = GOES_ON
                watch(connection)
                said = OVER
            # What was asked for is done, however long the counting takes.
            state = session.in_time(connection, reembedding_status.status, reembedding_status.uncounted)
    except (InvalidSetting, Unasked) as error:
        print(f"db: {error}", file=sys.stderr)
        return streams.WRONG_USAGE
    except (Failed, reembedding.Refused, ModelError, EmbedderUnavailable) as error:
        print(f"db: {error}", file=sys.stderr)
        return streams.FAILED
    except KeyboardInterrupt:
        print(f"db: {said}", file=sys.stderr)
        return streams.INTERRUPTED
    output.say(json.dumps(state) if given.json else told(state))
    return 0


@contextmanager
def connected(settings: Settings) -> Iterator[Connection]:
    """A connection of the owner, in autocommit: a change has a transaction of its own, and watching needs none."""
    engine = session.connect_engine(settings.database_url(), "reembed", autocommit=True)
    try:
        with engine.connect() as connection:
            yield connection
    finally:
        engine.dispose()


def ask_before_deleting(given: argparse.Namespace, connection: Connection) -> str | None:
    """The model whose vectors may be deleted, or None. Raises Failed for a no, and Unasked if nobody can be asked."""
    model = dropped_by(given.action, reembedding.present(connection))
    if model is None or given.yes:
        return model
    answer = streams.confirmed(f"Delete all vectors of {model}? They can only be made anew.")
    if answer is None:
        raise Unasked(f"this deletes all vectors of {model}: say --yes")
    if not answer:
        raise Failed(NOTHING)
    return model


@contextmanager
def transaction(settings: Settings) -> Iterator[Connection]:
    engine = session.connect_engine(settings.database_url(), "reembed")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


@dataclass(frozen=True)
class NewModel:
    """What is asked for, by its provider. `settings` make it, and are recorded."""

    name: str
    dimensions: int
    settings: providers.Recorded


def asked_for(given: argparse.Namespace, settings: Settings) -> NewModel:
    """The model that the options make, or else the settings. Raises InvalidSetting, and what its provider says."""
    values = {}
    for assignment in given.set:
        name, equals, value = assignment.partition("=")
        if not equals:
            raise InvalidSetting(f"--set {assignment}: takes NAME=VALUE")
        values[name.strip()] = value
    if given.provider:
        values[providers.PROVIDER] = given.provider
    chosen = providers.with_recorded(settings, values)
    provider = load_provider(chosen)
    idle = sorted(values.keys() - {providers.PROVIDER, *providers.OPTIONS.get(chosen.embedding_provider, ())})
    if idle:
        owner = next(name for name, options in providers.OPTIONS.items() if idle[0] in options)
        raise InvalidSetting(
            f"{idle[0]} is a setting of {owner}, not of {chosen.embedding_provider}: --provider {owner}"
        )
    return NewModel(provider.model, provider.dimensions, providers.recorded(chosen))


def carry_out(action: str, new: NewModel | None, connection: Connection, confirmed: str | None) -> None:
    """Raises reembedding.Refused, and Failed where it would delete the vectors of another model than the one that was
    `confirmed`: while the question stood there, another command or a switch came."""
    if new is not None:
        reembedding.start(connection, new.name, new.dimensions, new.settings)
        return
    model = dropped_by(action, reembedding.waited_for(connection))
    if model not in (None, confirmed):
        raise Failed(f"by now this would delete all vectors of {model}; {NOTHING}: see `python -m db reembed status`")
    ACTS[action](connection)


def dropped_by(action: str, change: reembedding.Change | None) -> str | None:
    """The model whose vectors an action would delete; None if it deletes nothing."""
    if change is None:
        return None
    if action == "undo" and change.under_way and not change.undoing:
        return change.model
    return change.old_model if action == "forget-old" and change.state == "switched" else None


def watch(connection: Connection) -> None:
    """Shows a bar until there is nothing left to wait for."""
    screen = Console(stderr=True)
    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    said: str | None = None
    count_again = 0.0
    with Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)
        while True:
            counts = time.monotonic() >= count_again
            read = reembedding_status.status if counts else reembedding_status.uncounted
            state = session.in_time(connection, read, reembedding_status.uncounted)
            if state is None or state["state"] in ("switched", "stopped"):
                return
            is_counted = state["done"] is not None
            if counts and not is_counted:
                count_again = time.monotonic() + COUNT_AGAIN_SECONDS
            progress.update(
                task,
                description=f"{state['state']} {state['model']}{'' if is_counted else UNCOUNTED}",
                completed=state["done"],
                total=max(state["done"], state["total"]) if is_counted and state["state"] != "dropping" else None,
            )
            if state["problem"] not in (None, said):
                said = state["problem"]
                progress.console.print(f"a worker says: {said}", markup=False, highlight=False)
            time.sleep(WATCH_SECONDS)


def told(state: dict[str, Any] | None) -> str:
    """The state in a line or two."""
    if state is None:
        return "no change of the model is under way, and no old vectors are kept"
    if state["state"] == "switched":
        return (
            f"the active model is {state['model']}; the vectors of {state['from_model']} are kept: "
            "`undo` goes back to them, `forget-old` deletes them"
        )
    if state["state"] == "dropping":
        left = UNCOUNTED if state["done"] is None else f", {state['done']} messages have some left"
        return f"the vectors of {state['model']} are being deleted{left}"
    back = "back " if state["undoing"] else ""
    line = f"{state['state']}: {back}from {state['from_model']} to {state['model']}"
    line += UNCOUNTED if state["done"] is None else f", {state['done']} of {state['total']}"
    if state["failed"]:
        line += f", {state['failed']} of them failed"
    return line + (f"\na worker says: {state['problem']}" if state["problem"] else "")
