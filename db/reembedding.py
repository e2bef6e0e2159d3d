"""The change to another model: where it stands, and what people ask for, each function in the caller's transaction. The
steps in between are in db.second_set, and tasks.reembedding takes them one by one.

All that there is to know stands in the tables, so any process may die at any point. The row of `reembedding` says where
it stands; its `model` is

running   the second set, which is being made: `followed_by` in the active model's row says the same
closing   the same, complete except for what comes in at this moment, which gets both vectors in one go
stopped   the same, left as it is
switched  the active model, the vectors of `old_model` being kept
dropping  the set that is being deleted

`undoing` marks a second set that was the active one before: nothing of it is thrown away.

Why nothing is missed: whoever stores a vector of the active model locks its row (db.embeddings.finish_jobs), and queues
the message for `followed_by` in that same transaction. What was embedded before `followed_by` was set is found by the
scan that begins after it. A switch locks the row alone, so what it sees of the queue is all there is.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, text

from db import vector_index
from db.sql import ACTIVE
from records import printable

PROBLEM_CHARS = 500


class Refused(Exception):
    """What was asked for cannot be done in this state; the message says why, and what can."""


@dataclass(frozen=True)
class Change:
    """The row of `reembedding`. `seconds` since its state has changed, or until then if the clock was set back."""

    state: str
    model: str
    old_model: str | None
    undoing: bool
    scanned_to: str | None
    scanned: bool
    seconds: float

    @property
    def under_way(self) -> bool:
        return self.state in ("running", "closing", "stopped")


QUERY = """
    SELECT state, model, old_model, undoing, scanned_to::text, scanned,
        abs(extract(epoch FROM clock_timestamp() - changed_at))::double precision
    FROM reembedding"""


def present(connection: Connection) -> Change | None:
    """The present change, under way or not, or None."""
    row = connection.execute(text(QUERY)).one_or_none()
    return Change(*row) if row else None


def locked(connection: Connection) -> Change | None:
    """The change, which nobody else moves on until the transaction ends; None if somebody else is at it."""
    row = connection.execute(text(f"{QUERY} FOR UPDATE SKIP LOCKED")).one_or_none()
    return Change(*row) if row else None


def waited_for(connection: Connection) -> Change | None:
    """As `locked`, but waits for whoever is at it."""
    row = connection.execute(text(f"{QUERY} FOR UPDATE")).one_or_none()
    return Change(*row) if row else None


def set_state(connection: Connection, state: str, model: str, *, old: str | None = None, undoing: bool) -> None:
    connection.execute(
        text("""
            UPDATE reembedding SET state = :state, model = :model, old_model = :old, undoing = :undoing,
                scanned_to = NULL, scanned = FALSE, problem = NULL, changed_at = clock_timestamp(),
                started_at = CASE WHEN model = :model THEN started_at ELSE clock_timestamp() END
        """),
        {"state": state, "model": model, "old": old, "undoing": undoing},
    )


def follow(connection: Connection, model: str | None) -> None:
    """Once this is committed, whoever stores a vector of the active model queues the message for this model too."""
    connection.execute(
        text("UPDATE embedding_models SET followed_by = :model, follow_now = FALSE WHERE active"), {"model": model}
    )


def start(connection: Connection, name: str, dimensions: int, settings: Mapping[str, str]) -> None:
    """Begins to make the vectors of a model beside those of the active one. Raises Refused."""
    active = connection.execute(text("SELECT name, dimensions FROM embedding_models WHERE active")).one_or_none()
    if active is None:
        raise Refused("no text was embedded yet: set EMBEDDING_PROVIDER and start the workers")
    if active.name == name:
        other = (
            f", with {active.dimensions} dimensions instead of {dimensions}" if active.dimensions != dimensions else ""
        )
        raise Refused(f"{name} is the active model already{other}: name another one with --provider or --set")
    began = connection.execute(
        text("""
            INSERT INTO reembedding (state, model) VALUES ('running', :model) ON CONFLICT DO NOTHING RETURNING state
        """),
        {"model": name},
    ).one_or_none()
    if began is None:
        raise Refused(described(waited_for(connection)))
    connection.execute(
        text("""
            INSERT INTO embedding_models (name, dimensions, settings, first_id)
            SELECT :name, :dimensions, :settings ::jsonb, coalesce(max(id), 0) + 1 FROM message_embeddings
            ON CONFLICT (name) DO UPDATE SET dimensions = excluded.dimensions, settings = excluded.settings,
                created_at = excluded.created_at, first_id = excluded.first_id
        """),
        {"name": name, "dimensions": dimensions, "settings": json.dumps(settings)},
    )
    follow(connection, name)


def described(change: Change | None) -> str:
    """Why there can be no second change, and what to do."""
    if change is None:
        return "somebody else began at this moment; see `python -m db reembed status`"
    if change.state == "switched":
        return (
            f"the vectors of {change.old_model} are still kept: `python -m db reembed forget-old` deletes them, "
            "`python -m db reembed undo` goes back to them"
        )
    if change.state == "dropping":
        return f"the vectors of {change.model} are being deleted: try again when that is done"
    return (
        f"the change to {change.model} is {'stopped' if change.state == 'stopped' else 'under way'}: see "
        "`python -m db reembed status`, and stop, resume or undo it"
    )


def stop(connection: Connection) -> Change:
    """Leaves the second set as it is. Raises Refused."""
    change = waited_for(connection)
    if change is None or not change.under_way:
        raise Refused("there is no change to stop")
    follow(connection, None)
    set_state(connection, "stopped", change.model, undoing=change.undoing)
    return change


def resume(connection: Connection) -> Change:
    """Goes on: everything is looked at again, and only what is missing is embedded. Raises Refused."""
    change = waited_for(connection)
    if change is None or change.state != "stopped":
        raise Refused("there is no stopped change to resume" if change is None else described(change))
    follow(connection, change.model)
    set_state(connection, "running", change.model, undoing=change.undoing)
    return change


def undo(connection: Connection) -> Change:
    """Before the switch: gives up the second set. After it: goes back to the old set, as soon as that has the vectors
    of what came meanwhile. Returns the change as it was. Raises Refused."""
    change = waited_for(connection)
    if change is None or change.state == "dropping":
        raise Refused("there is nothing to undo")
    if change.state == "switched":
        follow(connection, change.old_model)
        set_state(connection, "running", str(change.old_model), undoing=True)
        return change
    follow(connection, None)
    if change.undoing:
        active = connection.execute(text(ACTIVE)).scalar_one()
        set_state(connection, "switched", active, old=change.model, undoing=False)
    else:
        begin_to_drop(connection, change.model)
    return change


def forget_old(connection: Connection) -> Change:
    """Deletes the set from before the switch. Returns the change as it was. Raises Refused."""
    change = waited_for(connection)
    if change is None or change.state != "switched" or change.old_model is None:
        raise Refused("no vectors of before a change are kept")
    begin_to_drop(connection, change.old_model)
    return change


def begin_to_drop(connection: Connection, model: str) -> None:
    set_state(connection, "dropping", model, undoing=False)
    # Or each deletion would also work on a graph that nobody asks any more.
    vector_index.retire_all(connection, model)


def note_problem(connection: Connection, model: str, problem: str) -> None:
    """Notes what keeps the second set from being made, as a worker has just seen it."""
    connection.execute(
        text("""
            UPDATE reembedding SET problem = :problem, problem_at = clock_timestamp()
            WHERE model = :model AND state IN ('running', 'closing')
        """),
        {"problem": printable(problem, PROBLEM_CHARS), "model": model},
    )
