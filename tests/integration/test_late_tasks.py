"""A message changes, and its new text is embedded, at each moment in the life of a task that has the older one: before
each of its statements, and before it commits. What is left is of the newest text, or has a job."""

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from db import queries
from db.deadline import BoundedConnection, BoundedCursor
from tasks import embed
from tests.integration.test_embedding_faults import Fickle, fickle  # noqa: F401 - a fixture
from tests.parts import eventually
from tests.samples import a_record, ask, meanwhile, persist, run

WAITING = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


class Message:
    """One message, the job of its first text, and what the outside does to it."""

    def __init__(self, database: Engine, text: str) -> None:
        self.database = database
        self.id = str(uuid.uuid4())
        self.insert(text)
        (self.first,) = self.jobs()

    def jobs(self) -> list[int]:
        return [found["id"] for found in ask(self.database, "SELECT id FROM embedding_jobs WHERE NOT deleted")]

    def insert(self, text: str) -> None:
        run(self.database, "INSERT INTO text_messages (id, message) VALUES (:id ::uuid, :text)", id=self.id, text=text)

    def edit(self, text: str) -> None:
        run(self.database, "UPDATE text_messages SET message = :text WHERE id = :id ::uuid", id=self.id, text=text)

    def delete(self) -> None:
        run(self.database, "DELETE FROM text_messages WHERE id = :id ::uuid", id=self.id)

    def embed(self) -> None:
        """As another worker does what was queued since."""
        embed.embed_text([job for job in self.jobs() if job != self.first])

    def settle(self) -> None:
        """Does all jobs that are left, the second look at what was deleted too."""
        while jobs := [found["id"] for found in ask(self.database, "SELECT id FROM embedding_jobs")]:
            run(self.database, "UPDATE embedding_jobs SET available_at = now()")
            embed.embed_text(jobs)

    def check(self) -> None:
        """The text is embedded or has failed, whichever it must, and nothing else is there of the message."""
        with self.database.begin() as connection:
            found = queries.message(connection, self.id)
        state = found and found["embedding"]
        assert state == (found and ("failed" if "unembeddable" in found["message"] else "ready"))
        failures = "SELECT FROM embedding_failures WHERE message_id = :id ::uuid"
        assert len(ask(self.database, failures, id=self.id)) == (state == "failed")
        if state != "failed":
            vectors = "SELECT FROM message_embeddings WHERE message_id = :id ::uuid"
            assert len(ask(self.database, vectors, id=self.id)) == (state == "ready")


Change = Callable[[Message], None]


def edited(*texts: str) -> Change:
    def change(message: Message) -> None:
        for text in texts:
            message.edit(text)
            message.embed()

    return change


def stored_again(text: str) -> Change:
    def change(message: Message) -> None:
        message.insert(text)
        message.embed()

    return change


def deleted_and_stored_again(text: str) -> Change:
    def change(message: Message) -> None:
        message.delete()
        stored_again(text)(message)

    return change


def embedded_already(message: Message) -> None:
    """By another job of the same text."""
    run(message.database, "SELECT queue_embedding(ARRAY[:id ::uuid])", id=message.id)
    message.embed()


def ends(thread: threading.Thread) -> bool:
    thread.join(0.05)
    return not thread.is_alive()


@contextmanager
def at_moment(number: int, database: Engine, work: Callable[[], None]) -> Iterator[list[int]]:
    """Before the `number`th of this thread's statements and commits in the block, another thread does `work`; this one
    goes on when that is done, or waits for what this one holds. Gives a list that is empty once that has happened."""
    here = threading.current_thread()
    left = list(range(number + 1))
    with ExitStack() as ending, pytest.MonkeyPatch.context() as patch:

        def pass_by() -> None:
            if threading.current_thread() is here and left:
                left.pop()
                if not left:
                    thread = ending.enter_context(meanwhile(work))
                    eventually(lambda: ends(thread) or ask(database, WAITING) != [])

        def passing(call: Callable[..., None]) -> Callable[..., None]:
            def passed(*given: Any) -> None:
                pass_by()
                call(*given)

            return passed

        patch.setattr(BoundedCursor, "execute", passing(BoundedCursor.execute))
        patch.setattr(BoundedCursor, "copy_expert", passing(BoundedCursor.copy_expert))
        patch.setattr(BoundedConnection, "commit", passing(BoundedConnection.commit))
        yield left


CHANGES = {
    "edited": (None, edited("newer")),
    "edited and back": (None, edited("newer", "older")),
    "deleted": (None, Message.delete),
    "deleted and stored again": (None, deleted_and_stored_again("newer")),
    "stored again": (Message.delete, stored_again("newer")),
    "edited after another task": (embedded_already, edited("newer")),
    "edited to what fails": (None, edited("unembeddable")),
    "edited to what fails, and again": (None, edited("unembeddable", "newer")),
    "deleted and stored as what fails": (None, deleted_and_stored_again("unembeddable")),
    "stored again as what fails": (Message.delete, stored_again("unembeddable")),
}


def at_any_moment(
    database: Engine, older: str, before: Change | None, change: Change, *, edited_elsewhere: bool
) -> None:
    for number in itertools.count():
        message = Message(database, older)
        if edited_elsewhere:
            persist(database, a_record("one"))
            run(database, "UPDATE text_messages SET message = 'another' WHERE id <> :id ::uuid", id=message.id)
        if before is not None:
            before(message)
        with at_moment(number, database, partial(change, message)) as left:
            embed.embed_text([message.first])
        message.settle()
        message.check()
        if left:
            break
    assert number > 5, "the statements of a task"


@pytest.mark.parametrize(
    ("older", "edited_elsewhere"), [("older", False), ("older", True), ("unembeddable older", True)]
)
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_at_any_moment_of_an_older_task(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    name: str,
    older: str,
    edited_elsewhere: bool,
) -> None:
    before, change = CHANGES[name]
    at_any_moment(database, older, before, change, edited_elsewhere=edited_elsewhere)


@pytest.mark.parametrize("committed", [True, False])
def test_a_failure_beside_an_edit_that_is_not_committed_yet(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    committed: bool,
) -> None:
    message = Message(database, "unembeddable")
    with database.connect() as connection:
        connection.exec_driver_sql("UPDATE text_messages SET message = 'newer'")
        embed.embed_text([message.first])
        if committed:
            connection.commit()
    message.settle()
    message.check()
