"""Triggers of somebody's own that change a text while it is stored: the vector is made of what is stored."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Engine

from db import commands
from records import Record
from tasks import embed
from tasks import persist as storing
from tasks.app import app
from tests.integration.test_embedding_faults import Fickle, fickle, job_ids  # noqa: F401 - a fixture
from tests.integration.test_few_messages import at
from tests.samples import a_record, ask, embedded, run, statements_seen

MASKED = "regexp_replace(NEW.message, '[0-9]{4,}', '****')"
BEFORE = f"""
    CREATE FUNCTION masked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN NEW.message = {MASKED}; RETURN NEW; END $$;
    CREATE TRIGGER masked BEFORE INSERT OR UPDATE ON text_messages FOR EACH ROW EXECUTE FUNCTION masked()"""
AFTER = f"""
    CREATE FUNCTION masked() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE text_messages SET message = {MASKED} WHERE id = NEW.id AND message <> {MASKED};
        RETURN NULL;
    END $$;
    CREATE TRIGGER masked AFTER INSERT OR UPDATE ON text_messages FOR EACH ROW EXECUTE FUNCTION masked()"""
WATCHING = """
    CREATE FUNCTION watching() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER watching AFTER INSERT ON text_messages FOR EACH STATEMENT EXECUTE FUNCTION watching()"""


@pytest.fixture
def sent(fickle: Fickle, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:  # noqa: F811
    """What is sent instead of embed_text tasks: each one's arguments."""
    tasks: list[dict[str, Any]] = []
    monkeypatch.setattr(storing, "embed_queue_has_room", lambda _: True)
    monkeypatch.setattr(
        app, "send_task", lambda _, args, kwargs, **__: tasks.append({"jobs": args[0], "texts": args[1]} | kwargs)
    )
    return tasks


def store(records: Sequence[Record]) -> None:
    storing.persist_text([list(record) for record in records])


def carry_out(tasks: list[dict[str, Any]]) -> None:
    while tasks:
        embed.embed_text(**tasks.pop(0))


@pytest.mark.parametrize("trigger", [BEFORE, AFTER], ids=["before", "after"])
@pytest.mark.parametrize("count", [1, 3, 40], ids=["one", "few", "by COPY"])
def test_a_text_that_a_trigger_rewrites_gets_the_vector_of_what_is_stored(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    sent: list[dict[str, Any]],
    trigger: str,
    count: int,
) -> None:
    run(database, trigger)
    records = [a_record(f"card {'55551234' if number % 2 == 0 else 'none'}", at(1, number)) for number in range(count)]
    store(records)
    carry_out(sent)
    assert embedded(database) == {record.id for record in records}
    edited = [record._replace(message=f"{record.message}, later", timestamp=at(2)[0]) for record in records]
    store(edited)
    carry_out(sent)
    assert embedded(database) == {record.id for record in records}
    assert {found["message"] for found in ask(database, "SELECT message FROM text_messages")} <= {
        "card ****, later",
        "card none, later",
    }
    assert job_ids(database) == []
    assert not any("5555" in text for text in fickle.texts), "what nobody may find was embedded"


def test_texts_are_handed_on_where_a_trigger_changes_none(database: Engine, sent: list[dict[str, Any]]) -> None:
    run(database, WATCHING)
    for records in ([a_record("one")], [a_record(f"text {number}") for number in range(40)]):
        store(records)
        (task,) = sent
        assert task["texts"] == {record.id: record.message for record in records}
        assert "held" in task
        sent.clear()


def test_without_such_triggers_nothing_more_is_asked(
    database: Engine, sent: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    store([a_record("warm")])
    monkeypatch.setattr(commands, "stored_hashes", None)
    seen = statements_seen(monkeypatch)
    store([a_record("one")])
    assert len(seen) == 2, "the text, and the disk"
    store([a_record(f"text {number}") for number in range(40)])


def test_a_text_that_a_trigger_changes_though_it_came_again_is_not_taken_for_the_one_that_came(
    database: Engine,
    fickle: Fickle,  # noqa: F811
    sent: list[dict[str, Any]],
) -> None:
    again, other = a_record("card 55551234", at(1)), a_record("another", at(2))
    store([again])
    carry_out(sent)
    run(database, AFTER)
    store([again._replace(timestamp=at(2)[0]), other])
    carry_out(sent)
    assert embedded(database) == {again.id, other.id}


@pytest.mark.parametrize("others", [1, 30])
def test_a_text_that_came_again_and_was_changed_by_an_edits_trigger_is_embedded_anew(
    database: Engine, sent: list[dict[str, Any]], others: int
) -> None:
    """All edits of the batch are in one held job, in which the message is that came with the text it had."""
    first = [a_record("card 55551234", at(1)), *(a_record(f"text {number}", at(1, number)) for number in range(others))]
    store(first)
    carry_out(sent)
    run(database, BEFORE.replace("INSERT OR UPDATE", "UPDATE"))
    again, *edits = [record._replace(timestamp=at(2)[0]) for record in first]
    store([again, *(record._replace(message=f"{record.message} edited") for record in edits)])
    carry_out(sent)
    assert again.id in embedded(database)
