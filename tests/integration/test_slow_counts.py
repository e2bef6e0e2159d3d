"""A table so large that counting takes longer than a statement of the APIs may: the rest is told, nobody is away."""

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from api import parts
from api.app import create_app
from clients import connect, drain
from clients import database as clients_database
from db import embeddings, queries, reembed_command, reembedding, reembedding_status, session
from settings import Settings
from tests.parts import eventually
from tests.samples import run

SLOW = "SELECT count(*) FROM (SELECT pg_sleep(60)) AS a_large_table"


@pytest.fixture
def statement_ms() -> int:
    return 500


@pytest.fixture
def api(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch, statement_ms: int
) -> Iterator[FlaskClient]:
    monkeypatch.setattr(parts, "STATEMENT_MS", statement_ms)
    app = create_app("search", replace(settings, kafka_port=1, redis_url="redis://127.0.0.1:1/0"))
    yield app.test_client()
    app.extensions["parts"].close()


def test_the_status_tells_what_is_cheap_to_know(
    api: FlaskClient, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as connection:
        embeddings.register_model(connection, "a model", 4)
    monkeypatch.setattr(queries, "EMBEDDED", SLOW)
    answer = api.get("/status")
    status = answer.json
    assert status is not None
    assert (answer.status_code, status["status"], status["model"]) == (200, "up_to_date", "a model")
    assert (status["embedded"], status["pending"], status["failed"]) == (None, 0, 0)
    assert status["index"]["vectors"] == 0


def test_a_change_of_the_model_goes_on_without_numbers(
    api: FlaskClient, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as connection:
        embeddings.register_model(connection, "a model", 4)
        reembedding.start(connection, "another", 4, {})
    with database.begin() as connection:
        connection.execute(text("LOCK TABLE message_embeddings IN ACCESS EXCLUSIVE MODE"))
        answer = api.get("/status")
        with monkeypatch.context() as patch:
            patch.delattr(reembedding_status, "status")
            assert api.get("/status").json == answer.json, "it is not counted for each who asks"
    status = answer.json
    assert status is not None
    assert answer.status_code == 200
    assert (status["embedded"], status["index"]) == (None, None)
    change = status["reembedding"]
    assert (change["state"], change["model"]) == ("embedding", "another")
    assert (change["done"], change["failed"], change["total"]) == (None, None, None)


def test_the_stats_tell_what_is_cheap_to_know(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch, statement_ms: int
) -> None:
    monkeypatch.setattr(parts, "STATEMENT_MS", statement_ms)
    app = create_app("text", replace(settings, kafka_port=1, redis_url="redis://127.0.0.1:1/0"))
    run(database, "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), 'one')")

    def stats() -> dict[str, Any]:
        answer = app.test_client().get("/stats")
        assert answer.status_code == 200
        assert answer.json is not None
        return dict(answer.json)

    before = stats()
    assert (before["messages"], before["embeddings"], before["pending"]) == (1, 0, 1)
    assert before["per_minute"][-1]["messages"] + before["per_minute"][-2]["messages"] == 1
    monkeypatch.setattr(queries, "EMBEDDED", SLOW)
    assert stats() == before | {"messages": None, "embeddings": None}
    monkeypatch.setattr(queries, "of_each_minute", lambda connection: connection.execute(text(SLOW)))
    assert stats() == before | {"messages": None, "embeddings": None, "per_minute": None}
    app.extensions["parts"].close()


@pytest.mark.parametrize("statement_ms", [4_000])
def test_the_console_and_the_metrics_say_that_nobody_is_away(
    api: FlaskClient, database: Engine, monkeypatch: pytest.MonkeyPatch, statement_ms: int
) -> None:
    monkeypatch.setattr(queries, "EMBEDDED", SLOW)

    def metrics() -> dict[str, float]:
        families = text_string_to_metric_families(api.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return {sample.labels.get("part", sample.name): sample.value for sample in samples}

    eventually(lambda: metrics()["database"] == 1)
    began = time.monotonic()
    while "takes too long" not in (page := api.get("/").text):
        assert "PostgreSQL does not answer" not in page
        assert metrics()["database"] == 1
        assert time.monotonic() - began < 15
    found = metrics()
    assert found["database"] == 1
    assert found["embedding_pending_messages"] == 0
    assert "embedding_searchable_messages" not in found


@pytest.fixture
def reembed(settings: Settings, monkeypatch: pytest.MonkeyPatch, statement_ms: int) -> Callable[..., int]:
    """`python -m db reembed` with these arguments."""

    def run(*arguments: str) -> int:
        parser = argparse.ArgumentParser()
        reembed_command.add_to(parser.add_subparsers())
        return reembed_command.run(parser.parse_args(["reembed", *arguments]), settings)

    monkeypatch.setattr(session, "connect_engine", partial(session.connect_engine, timeout_ms=statement_ms))
    monkeypatch.setattr(reembedding_status, "COUNTED", f"({SLOW}) AS embedded, 0 AS failed, 0 AS messages")
    return run


@pytest.fixture
def change(database: Engine) -> Engine:
    """The database with a change to another model, under way."""
    with database.begin() as connection:
        embeddings.register_model(connection, "a model", 4)
        reembedding.start(connection, "another", 4, {})
    return database


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ("status", "embedding: from a model to another; counting takes too long"),
        ("stop", "stopped: from a model to another; counting takes too long"),
        ("undo", "the vectors of another are being deleted; counting takes too long"),
        ("forget-old", "the vectors of a model are being deleted; counting takes too long"),
    ],
)
def test_a_command_says_what_it_did_without_numbers(
    change: Engine, reembed: Callable[..., int], capsys: pytest.CaptureFixture[str], action: str, said: str
) -> None:
    if action == "forget-old":
        with change.begin() as connection:
            reembedding.set_state(connection, "switched", "another", old="a model", undoing=False)
    assert reembed(action, "--yes", "--no-wait") == 0
    assert capsys.readouterr() == (f"{said} in so large a table\n", "")


def test_watching_goes_on_without_numbers(
    change: Engine, reembed: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses = []

    def pause(_seconds: float) -> None:
        pauses.append(1)
        if len(pauses) == 3:
            with change.begin() as connection:
                reembedding.stop(connection)

    monkeypatch.setattr(reembed_command, "time", SimpleNamespace(sleep=pause, monotonic=time.monotonic))
    assert reembed("status", "--wait") == 0
    assert len(pauses) == 3
    assert capsys.readouterr().out.startswith("stopped: from a model to another; counting takes too long")


def test_a_drain_counts_only_what_it_waits_for(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "EMBEDDED", SLOW)
    monkeypatch.setattr(clients_database, "STATEMENT_MS", 500)
    monkeypatch.setattr(connect, "partitions", lambda *_: [])
    monkeypatch.setattr(drain, "in_hand", lambda *_: (0, 0))
    assert drain.wait(settings, None, "a drain", timeout=5) == drain.Left(0, 0, 0, 0)
