"""Changing the model while everything runs: searches go on, nothing is missed, and it can be stopped, resumed, undone
and killed. The second model is one of 300 dimensions behind an HTTP server that a test may hold back."""

import argparse
import json
import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest
import requests
from sqlalchemy import Engine, text

from api.model import Model
from api.problems import Unavailable
from db import (
    embeddings,
    index_catalogue,
    outbox,
    providers,
    reembed_command,
    reembedding,
    reembedding_status,
    second_set,
)
from db.embeddings import Embedded, ModelSwitched
from embedder import EmbedderUnavailable, ModelError
from embedder.hashing import HashingEmbedder
from records import Record
from settings import Settings
from tasks import reembedding as driver
from tasks import resources
from tasks.embed import embed_text
from tests.embedder_parts import KEY, Embeddings, Gate, a_gate
from tests.parts import Running, eventually
from tests.samples import (
    LEASE,
    MODEL,
    a_record,
    ask,
    content_hash,
    embed,
    meanwhile,
    persist,
    run,
    vectors_of,
    wait_until_blocked,
)

Start = Callable[..., Running]

OLD = "hashing-384"
NEW = "text-embedding-3-small@300"
OPTIONS = ["--provider", "openai", "--set", "OPENAI_DIMENSIONS=300"]

# Messages whose vectors of a model, and their texts, do not fit together: none, or one of another text.
WITHOUT = """
    SELECT m.id FROM text_messages m WHERE NOT EXISTS (
        SELECT FROM message_embeddings e
        WHERE e.message_id = m.id AND e.model = :model AND e.content_hash = m.content_hash)
"""
STALE = """
    SELECT e.id FROM message_embeddings e LEFT JOIN text_messages m ON m.id = e.message_id
    WHERE e.model = :model AND m.content_hash IS DISTINCT FROM e.content_hash
"""


@pytest.fixture
def key(gate: Gate) -> dict[str, Any]:
    """What the settings of every part have to say about the new model: its key and where it is."""
    return {"openai_base_url": gate.url, "openai_api_key": KEY, "openai_timeout_seconds": 60.0}


@pytest.fixture
def chosen(settings: Settings, key: dict[str, Any]) -> Settings:
    return Settings(**{**settings.__dict__, **key})


class System:
    """The parts that a change of the model needs, and what is asked of them."""

    def __init__(self, chosen: Settings, database: Engine, running: dict[str, Running]) -> None:
        self.chosen = chosen
        self.database = database
        self.running = running
        self.http = requests.Session()
        self.http.trust_env = False

    def add(self, count: int, name: str = "text") -> None:
        run(
            self.database,
            "INSERT INTO text_messages (id, message) "
            "SELECT gen_random_uuid(), :name || ' word' || n || ' other' || n FROM generate_series(1, :count) n",
            name=name,
            count=count,
        )

    def reembed(self, *arguments: str) -> int:
        return reembed(self.chosen, *arguments)

    @property
    def status(self) -> dict[str, Any]:
        answer = self.http.get(f"http://127.0.0.1:{self.chosen.search_api_port}/status", timeout=10)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    @property
    def state(self) -> str | None:
        found = self.status["reembedding"]
        return found["state"] if found else None

    def search(self, query: str) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.chosen.search_api_port}/embeddings/search"
        # A condition that so few messages pass has them all compared exactly: HNSW may miss one, now and then.
        asked = {"query": query, "limit": 3, "since": "2000-01-01T00:00:00Z"}
        answer = self.http.post(url, json=asked, timeout=15)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def finds(self, message: str, model: str) -> bool:
        answer = self.search(message)
        assert answer["model"] == model
        return any(hit["message"] == message and hit["score"] > 0.99 for hit in answer["results"])

    def is_whole(self, model: str) -> bool:
        return ask(self.database, WITHOUT, model=model) == []

    def has_stale(self, model: str) -> bool:
        return ask(self.database, STALE, model=model) != []

    def count(self, model: str) -> int:
        query = "SELECT count(*) AS n FROM message_embeddings WHERE model = :model"
        return int(ask(self.database, query, model=model)[0]["n"])

    def wait_for(self, state: str | None, timeout: float = 40) -> None:
        eventually(lambda: self.state == state, timeout)


def reembed(chosen: Settings, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    reembed_command.add_to(parser.add_subparsers())
    return reembed_command.run(parser.parse_args(["reembed", *arguments]), chosen)


PARTS = ("persist-worker", "embed-worker", "beat", "search-api")


@pytest.fixture
def live(chosen: Settings, database: Engine, start: Start, key: dict[str, Any]) -> System:
    changes = {**key, "index_seal_rows": 100, "embed_lease_seconds": 3.0}
    running = {name: start(name, wait=False, **changes) for name in PARTS}
    for each in running.values():
        each.wait_until_healthy()
    return System(chosen, database, running)


def begin_held(live: System, gate: Gate, count: int) -> None:
    """So many messages with their old vectors, and a change of the model that is at its first texts and held there."""
    live.add(count)
    eventually(lambda: live.is_whole(OLD))
    gate.open.clear()
    assert live.reembed(*OPTIONS, "--no-wait") == 0
    eventually(lambda: gate.inside)


@pytest.mark.slow
def test_a_change_there_and_back(live: System, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    begin_held(live, gate, 250)
    assert "embedding: from hashing-384 to text-embedding-3-small@300, 0 of 250" in capsys.readouterr().out
    assert live.reembed(*OPTIONS, "--no-wait") == 1
    assert "is under way" in capsys.readouterr().err

    # Meanwhile, with the new model at its first texts.
    texts = [row["message"] for row in ask(live.database, "SELECT message FROM text_messages ORDER BY id")]
    first, second, *_, before_last, last = texts
    assert live.finds(first, OLD)
    run(live.database, "UPDATE text_messages SET message = 'edited early' WHERE message = :m", m=first)
    run(live.database, "UPDATE text_messages SET message = 'edited late' WHERE message = :m", m=last)
    run(live.database, "DELETE FROM text_messages WHERE message IN (:m, :n)", m=second, n=before_last)
    live.add(20, "newcomer")
    # The one embed worker is held by the new model, as it would be by a long text of anybody's.
    with live.database.connect() as builder:  # and so is the builder of the indexes
        builder = builder.execution_options(isolation_level="AUTOCOMMIT")
        # Without a wait: a build that has the lock waits for whoever waits for it.
        take = text("SELECT pg_try_advisory_lock(:key)"), {"key": index_catalogue.BUILDER_LOCK}
        eventually(lambda: builder.execute(*take).scalar_one())
        gate.open.set()
        eventually(lambda: live.is_whole(OLD))
        live.wait_for("indexing")
        assert live.is_whole(NEW)
        assert live.finds("edited early", OLD)
        builder.invalidate()

    live.wait_for("switched")
    assert live.is_whole(NEW)
    assert not live.has_stale(NEW)
    assert live.count(NEW) == 268
    parts = ask(
        live.database,
        "SELECT p.changed_at < r.changed_at AS before FROM vector_index_parts p, reembedding r "
        "WHERE p.model = :model AND p.state = 'ready'",
        model=NEW,
    )
    assert parts
    assert parts[0] == {"before": True}
    for message in ("edited early", "edited late", "newcomer word7 other7"):
        assert live.finds(message, NEW)
    assert live.status["model"] == NEW
    assert live.status["index"]["parts"]

    # The workers go on with the new one, without a restart.
    live.add(5, "afterwards")
    eventually(lambda: live.is_whole(NEW))
    assert live.finds("afterwards word3 other3", NEW)
    assert len(ask(live.database, WITHOUT, model=OLD)) == 5
    run(live.database, "UPDATE text_messages SET message = 'edited after' WHERE message = 'edited late'")
    eventually(lambda: live.is_whole(NEW))

    # And so does one that is started with the settings of before.
    live.running["embed-worker"].kill()
    live.running["search-api"].kill()
    for name in ("embed-worker", "search-api"):
        live.running[name].start()
        live.running[name].wait_until_healthy()
    live.add(3, "restarted")
    eventually(lambda: live.is_whole(NEW))
    assert live.finds("restarted word2 other2", NEW)

    assert live.reembed("undo", "--no-wait") == 0
    eventually(lambda: live.status["model"] == OLD, 40)
    assert live.is_whole(OLD)
    assert not live.has_stale(OLD)
    assert live.finds("restarted word2 other2", OLD)
    assert live.finds("edited after", OLD)
    assert live.state == "switched"
    capsys.readouterr()
    assert live.reembed("forget-old", "--no-wait") == 2  # nobody is there to be asked
    assert "--yes" in capsys.readouterr().err
    assert live.reembed("forget-old", "--wait", "--yes") == 0
    live.wait_for(None)
    assert live.count(NEW) == 0
    assert [row["name"] for row in ask(live.database, "SELECT name FROM embedding_models")] == [OLD]


@pytest.mark.slow
def test_stopped_resumed_killed_and_given_up(live: System, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    begin_held(live, gate, 1500)
    gate.open.set()
    eventually(lambda: live.count(NEW) >= 100, interval=0.01)
    assert live.reembed("stop") == 0
    assert live.state == "stopped"
    eventually(lambda: live.running["embed-worker"].alive)
    kept = live.count(NEW)
    assert kept >= 100
    live.add(5, "while stopped")
    run(live.database, "UPDATE text_messages SET message = 'edited' WHERE message = 'text word1 other1'")
    eventually(lambda: live.is_whole(OLD))
    assert len(ask(live.database, WITHOUT, model=NEW)) >= 6

    gate.open.clear()
    held = len(gate.inside)
    asked = len(gate.requests)
    assert live.reembed("resume", "--no-wait") == 0
    eventually(lambda: len(gate.inside) > held)
    live.running["embed-worker"].kill()
    live.running["persist-worker"].kill()
    gate.open.set()
    for name in ("persist-worker", "embed-worker"):
        live.running[name].start()
    live.wait_for("switched", 60)
    assert live.is_whole(NEW)
    assert not live.has_stale(NEW)
    again = sum(len(question["input"]) for question in gate.requests[asked:])
    assert again < 1500 + 300 - kept + 200  # not what was done before; what the killed worker had in hand is done twice


@pytest.mark.slow
def test_given_up_before_the_switch(live: System, gate: Gate, capsys: pytest.CaptureFixture[str]) -> None:
    begin_held(live, gate, 300)
    assert live.reembed("undo") == 2
    assert live.state == "embedding"
    assert live.reembed("undo", "--yes", "--no-wait") == 0
    gate.open.set()
    live.wait_for(None)
    assert live.count(NEW) == 0
    assert ask(live.database, "SELECT FROM embedding_jobs WHERE model IS NOT NULL") == []
    assert live.finds("text word3 other3", OLD)
    assert [row["name"] for row in ask(live.database, "SELECT name FROM embedding_models")] == [OLD]
    assert live.reembed("status", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) is None


@pytest.mark.slow
def test_searches_never_see_two_models_at_once(live: System) -> None:
    """Searches run through the switch, there and back. Vectors of two models have different lengths: PostgreSQL refuses
    to compare them."""
    live.add(120)
    eventually(lambda: live.is_whole(OLD))
    ended = threading.Event()
    seen: list[str] = []
    wrong: list[object] = []

    def ask_on() -> None:
        number = 0
        client = System(live.chosen, live.database, {})
        while not ended.is_set():
            number = number % 120 + 1
            message = f"text word{number} other{number}"
            try:
                answer = client.search(message)
            except AssertionError as error:
                wrong.append(str(error))
                continue
            seen.append(answer["model"])
            if not any(hit["message"] == message and hit["score"] > 0.99 for hit in answer["results"]):
                scores = [(hit["message"], hit["score"]) for hit in answer["results"]]
                wrong.append((len(seen), answer["model"], message, scores))

    with meanwhile(ask_on), meanwhile(ask_on):
        try:
            assert live.reembed(*OPTIONS, "--no-wait") == 0
            eventually(lambda: seen and seen[-1] == NEW, 40)
            assert live.reembed("undo", "--no-wait") == 0
            eventually(lambda: seen[-1] == OLD, 40)
        finally:
            ended.set()
    assert wrong == []
    assert set(seen) == {OLD, NEW}


@pytest.mark.slow
def test_the_switch_comes_while_texts_pour_in(live: System) -> None:
    live.add(50)
    eventually(lambda: live.is_whole(OLD))
    ended = threading.Event()

    def pour() -> None:
        number = 0
        while not ended.wait(0.02):
            number += 1
            live.add(1, f"poured {number}")

    lost: list[object] = []

    def watch() -> None:
        """At the moment of the switch no message that had its old vector is without its new one."""
        query = f"""
            SELECT (SELECT name FROM embedding_models WHERE active) AS active,
                (SELECT count(*) FROM ({WITHOUT.replace(":model", ":new")}) AS w JOIN message_embeddings e
                 ON e.message_id = w.id AND e.model = :old) AS behind
        """
        while not ended.is_set():
            (found,) = ask(live.database, query, new=NEW, old=OLD)
            if found["active"] == NEW:
                lost.append(found["behind"])

    with meanwhile(pour), meanwhile(watch):
        try:
            assert live.reembed(*OPTIONS, "--no-wait") == 0
            eventually(lambda: live.status["model"] == NEW, 60)
            eventually(lambda: len(lost) > 3)
        finally:
            ended.set()
    assert set(lost) == {0}
    eventually(lambda: live.is_whole(NEW))


def test_a_provider_that_does_not_work_is_named(live: System, gate: Gate) -> None:
    live.add(10)
    eventually(lambda: live.is_whole(OLD))
    assert live.reembed(*OPTIONS, "--no-wait") == 0
    gate.dimensions = 50  # from now on the endpoint has another model
    gate.RequestHandlerClass = Shortened
    eventually(lambda: "dimensions" in ((live.status["reembedding"] or {}).get("problem") or ""), 30)
    assert live.finds("text word3 other3", OLD)


class Shortened(Embeddings):
    def embed(self, question: dict[str, Any]) -> Any:
        return super().embed({**question, "dimensions": 50})


# The steps one by one, on the database alone.

SECOND = "second-8"


def refuse_or_not(changing: Engine, record: Record, *, failed: bool) -> str | None:
    """Stores a vector, or a failure, of the model that was the active one; returns the one that it was refused for."""
    failures = [(record.id, str(uuid.UUID(bytes=content_hash("one"))), "no")] if failed else []
    vectors = embeddings.NO_VECTORS if failed else vectors_of({record.id: "one"})
    jobs = [row["id"] for row in ask(changing, "SELECT id FROM embedding_jobs")]
    with changing.begin() as connection:
        claimed = outbox.claim_jobs(connection, jobs, LEASE, 60)
    try:
        with changing.begin() as connection:
            embeddings.finish_with_vectors(connection, claimed, LEASE, MODEL, Embedded(vectors, failures))
    except ModelSwitched as error:
        return str(error)
    return None


@pytest.fixture
def changing(database: Engine) -> Engine:
    """A database whose active model is MODEL, and a change to SECOND under way."""
    with database.begin() as connection:
        embeddings.register_model(connection, MODEL, 4, {"EMBEDDING_PROVIDER": "first"})
        reembedding.start(connection, SECOND, 4, {"EMBEDDING_PROVIDER": "second"})
    return database


def second_jobs(database: Engine) -> list[int]:
    return [row["id"] for row in ask(database, "SELECT id FROM embedding_jobs WHERE model = :m ORDER BY id", m=SECOND)]


def the_change(database: Engine) -> reembedding.Change:
    with database.begin() as connection:
        found = reembedding.present(connection)
    assert found is not None
    return found


def store_second(database: Engine, texts: dict[str, str]) -> None:
    with database.begin() as connection:
        claimed = outbox.claim_jobs(connection, second_jobs(database), LEASE, 60)
        assert embeddings.finish_with_vectors(connection, claimed, LEASE, SECOND, Embedded(vectors_of(texts))) is None


def test_what_gets_its_vector_is_queued_for_the_second_set(changing: Engine) -> None:
    record = a_record("one")
    persist(changing, record)
    assert second_jobs(changing) == []
    embed(changing, {record.id: "one"})
    assert len(second_jobs(changing)) == 1
    with changing.begin() as connection:
        assert not second_set.switch(connection, the_change(changing))
    store_second(changing, {record.id: "one"})
    assert second_jobs(changing) == []
    with changing.begin() as connection:
        assert second_set.switch(connection, the_change(changing))
    assert ask(changing, "SELECT name, instead_of FROM embedding_models WHERE active") == [
        {"name": SECOND, "instead_of": [{"EMBEDDING_PROVIDER": "first"}]}
    ]


def test_a_deletion_is_no_work_for_the_second_set_and_cleans_it_too(changing: Engine) -> None:
    """A vector of the second set that was written while the message was deleted goes when that is looked at again."""
    record = a_record("one")
    persist(changing, record)
    run(changing, "DELETE FROM text_messages")
    with changing.begin() as connection:
        embeddings.copy(connection, SECOND, vectors_of({record.id: "one"}))
    run(changing, "DELETE FROM embedding_jobs WHERE NOT deleted")
    run(changing, "UPDATE embedding_jobs SET available_at = now()")
    embed(changing, {})
    assert second_jobs(changing) == []
    assert ask(changing, "SELECT FROM message_embeddings") == []


def test_while_it_closes_the_second_vector_does_not_wait(changing: Engine) -> None:
    with changing.begin() as connection:
        second_set.set_closing(connection, closing=True)
    record = a_record("one")
    persist(changing, record)
    with changing.begin() as connection:
        jobs = [row["id"] for row in ask(changing, "SELECT id FROM embedding_jobs")]
        claimed = outbox.claim_jobs(connection, jobs, LEASE, 60)
        following = embeddings.finish_with_vectors(
            connection, claimed, LEASE, MODEL, Embedded(vectors_of({record.id: "one"}))
        )
    assert following == embeddings.Following(SECOND, second_jobs(changing))


class Named(HashingEmbedder):
    """The hashing provider under another name."""

    def __init__(self, model: str) -> None:
        super().__init__()
        self.model = model


def test_while_it_closes_one_task_makes_both_vectors(
    changing: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources, "engine", lambda: changing)
    monkeypatch.setattr(resources, "embedder", lambda: Named(MODEL))
    monkeypatch.setattr(resources, "second_embedder", Named)
    monkeypatch.setattr("settings.load", lambda: settings)
    for closing in (False, True):
        with changing.begin() as connection:
            second_set.set_closing(connection, closing=closing)
        record = a_record(f"closing {closing}")
        embed_text(persist(changing, record, reserved_seconds=60).jobs)
        assert ask(changing, "SELECT model FROM message_embeddings ORDER BY model") == (
            [{"model": MODEL}] if not closing else [{"model": MODEL}, {"model": MODEL}, {"model": SECOND}]
        )
        assert len(second_jobs(changing)) == 1  # that of before


@pytest.mark.parametrize("failed", [False, True])
def test_what_meets_the_switch_is_not_stored(changing: Engine, failed: bool) -> None:
    """It waits for the row of the active model, which is no longer the active one when it gets it."""
    record = a_record("one")
    persist(changing, record)
    refused: list[str | None] = []
    with changing.begin() as connection:
        assert second_set.switch(connection, the_change(changing))
        with meanwhile(lambda: refused.append(refuse_or_not(changing, record, failed=failed))):
            wait_until_blocked(changing)
            connection.commit()
    assert refused == [SECOND]
    assert ask(changing, "SELECT model FROM embedding_jobs") == [{"model": None}]
    assert ask(changing, "SELECT FROM message_embeddings") == ask(changing, "SELECT FROM embedding_failures") == []


@pytest.fixture
def sent(changing: Engine, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The jobs of each task that the driver sends."""
    tasks: list[list[int]] = []
    monkeypatch.setattr(resources, "side_engine", lambda: changing)
    monkeypatch.setattr(driver, "length_at_priority", lambda *_: 0)
    monkeypatch.setattr(driver, "send_jobs", lambda found, **_: tasks.extend(jobs for jobs, _ in found))
    return tasks


@pytest.mark.usefixtures("sent")
def test_a_clock_that_was_set_back_holds_no_switch(changing: Engine, settings: Settings) -> None:
    with changing.begin() as connection:
        second_set.set_closing(connection, closing=True)
    driver.step(settings)
    assert the_change(changing).state == "closing", "the search APIs load the new model first"
    run(changing, "UPDATE reembedding SET changed_at = changed_at + INTERVAL '1 day'")
    driver.step(settings)
    assert the_change(changing).state == "switched"


def test_a_job_is_sent_once_and_again_where_its_task_was_lost(
    changing: Engine, settings: Settings, sent: list[list[int]]
) -> None:
    persist(changing, a_record("one"))
    for _ in range(3):
        driver.step(settings)
    assert sent == [second_jobs(changing)]
    for moved in ("-", "+"):  # its time is over; the clock was set back
        run(changing, f"UPDATE embedding_jobs SET available_at = now() {moved} INTERVAL '1 h' WHERE model IS NOT NULL")
        driver.step(settings)
        driver.step(settings)
    assert sent == [second_jobs(changing)] * 3


def test_a_change_that_is_stopped_sends_nothing(changing: Engine, settings: Settings, sent: list[list[int]]) -> None:
    persist(changing, a_record("one"))
    with changing.begin() as connection:
        reembedding.stop(connection)
    assert not driver.step(settings)
    assert (sent, second_jobs(changing), the_change(changing).state) == ([], [], "stopped")


@pytest.mark.usefixtures("sent")
def test_where_a_new_model_fails_while_it_closes_new_messages_wait_for_it_no_more(
    changing: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "PILED_UP", 1)
    follows = "SELECT follow_now FROM embedding_models WHERE active"
    with changing.begin() as connection:
        second_set.set_closing(connection, closing=True)
        outbox.queue_for(connection, SECOND, [str(uuid.uuid4())])
    driver.step(settings)
    assert (the_change(changing).state, ask(changing, follows)) == ("closing", [{"follow_now": True}])
    with changing.begin() as connection:
        outbox.queue_for(connection, SECOND, [str(uuid.uuid4())])
    driver.step(settings)
    assert (the_change(changing).state, ask(changing, follows)) == ("running", [{"follow_now": False}])


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("indexed", [False, True])
def test_no_switch_comes_before_the_index(
    changing: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, indexed: bool
) -> None:
    monkeypatch.setattr(second_set, "is_indexed", lambda *_: indexed)
    for _ in range(3):
        driver.step(settings)
    assert the_change(changing).state == ("closing" if indexed else "running")


def test_a_switch_waits_for_who_just_stores_a_vector_and_sees_what_he_queues(changing: Engine) -> None:
    record = a_record("one")
    made = persist(changing, record, reserved_seconds=60)
    done: list[bool] = []

    def switch() -> None:
        with changing.begin() as connection:
            done.append(second_set.switch(connection, the_change_in(connection)))

    with changing.begin() as connection:
        claimed = outbox.claim_jobs(connection, made.jobs, LEASE, 60)
        vectors = Embedded(vectors_of({record.id: "one"}))
        embeddings.finish_with_vectors(connection, claimed, LEASE, MODEL, vectors)
        with meanwhile(switch):
            wait_until_blocked(changing)
            connection.commit()
    assert done == [False]


def test_the_scan_goes_on_behind_its_first_piece_and_passes_what_has_failed(
    changing: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(second_set, "SCAN_ROWS", 2)
    persist(changing, *(a_record(f"text {number}") for number in range(5)))
    failed = """
        INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
        SELECT id, content_hash, :model, 'no', 1 FROM text_messages ORDER BY id DESC LIMIT 1
    """
    run(changing, failed, model=SECOND)
    with changing.begin() as connection:
        for _ in range(3):
            assert not the_change_in(connection).scanned
            second_set.scan(connection, the_change_in(connection))
        assert the_change_in(connection).scanned
        assert second_set.waiting(connection, SECOND) == 4


def test_a_set_that_is_deleted_leaves_nothing_behind_though_a_worker_holds_a_job_of_it(changing: Engine) -> None:
    persist(changing, a_record("one"), a_record("two"))
    run(
        changing,
        "INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts) "
        "SELECT id, content_hash, :model, 'no', 1 FROM text_messages",
        model=SECOND,
    )
    with changing.begin() as connection:
        outbox.queue_for(connection, SECOND, [str(uuid.uuid4())])
        reembedding.undo(connection)
    with changing.begin() as worker:
        worker.exec_driver_sql("SELECT FROM embedding_jobs WHERE model IS NOT NULL FOR UPDATE")
        with changing.begin() as connection:
            assert second_set.drop_piece(connection, the_change_in(connection))
    with changing.begin() as connection:
        assert not second_set.drop_piece(connection, the_change_in(connection))
        assert reembedding.present(connection) is None
    assert second_jobs(changing) == []
    assert ask(changing, "SELECT FROM embedding_failures") == []
    assert ask(changing, "SELECT name FROM embedding_models") == [{"name": MODEL}]


def test_a_failure_counts_for_its_model_alone(changing: Engine) -> None:
    record = a_record("one")
    persist(changing, record)
    embed(changing, {record.id: "one"})
    failure = (record.id, str(uuid.UUID(bytes=content_hash("one"))), "no")
    with changing.begin() as connection:
        claimed = outbox.claim_jobs(connection, second_jobs(changing), LEASE, 60)
        embeddings.finish_with_vectors(connection, claimed, LEASE, SECOND, Embedded(embeddings.NO_VECTORS, [failure]))
    persist(changing, a_record("one", (1_700_000_000_001, 0, 1), id=record.id))
    run(changing, "SELECT queue_embedding(array_agg(id)) FROM text_messages")
    embed(changing, {record.id: "one"})
    kept = ask(changing, "SELECT model FROM embedding_failures")
    assert kept == [{"model": SECOND}]
    with changing.begin() as connection:
        found = reembedding_status.status(connection)
    assert found is not None
    assert (found["done"], found["failed"], found["total"]) == (1, 1, 1)


def test_the_scan_finds_what_was_there_before_and_is_missing(database: Engine) -> None:
    with database.begin() as connection:
        embeddings.register_model(connection, MODEL, 4)
    records = [a_record(f"text {number}") for number in range(250)]
    persist(database, *records)
    embed(database, {record.id: str(record.message) for record in records})
    with database.begin() as connection:
        reembedding.start(connection, SECOND, 4, {})
        second_set.scan(connection, the_change_in(connection))
        assert the_change_in(connection).scanned
        assert second_set.waiting(connection, SECOND) == 250
        taken = second_set.take(connection, SECOND, messages=120, seconds=60)
        assert [job.messages for job in taken] == [100, 100]
    store_second(database, {record.id: str(record.message) for record in records[:200]})
    with database.begin() as connection:
        reembedding.stop(connection)
        reembedding.resume(connection)
        connection.exec_driver_sql("DELETE FROM embedding_jobs")
        second_set.scan(connection, the_change_in(connection))
        assert second_set.waiting(connection, SECOND) == 50


def the_change_in(connection: Any) -> reembedding.Change:
    found = reembedding.present(connection)
    assert found is not None
    return found


def test_an_edit_while_the_change_is_stopped_is_not_missing_from_the_second_set(changing: Engine) -> None:
    """Its job of before is in a worker's hand when the change is resumed, so the scan takes it for queued."""
    record = a_record("one")
    persist(changing, record)
    with changing.begin() as connection:
        jobs = outbox.queue_for(connection, SECOND, [record.id])
        in_hand = outbox.claim_jobs(connection, jobs, LEASE, 60)
        reembedding.stop(connection)
    run(changing, "UPDATE text_messages SET message = 'two'")
    run(changing, "DELETE FROM embedding_jobs WHERE model IS NULL")
    with changing.begin() as connection:
        embeddings.copy(connection, MODEL, vectors_of({record.id: "two"}))
        reembedding.resume(connection)
        second_set.scan(connection, the_change_in(connection))
        assert second_set.waiting(connection, SECOND) == 1, "it took it for queued"
        late = Embedded(vectors_of({record.id: "one"}))
        embeddings.finish_with_vectors(connection, in_hand, LEASE, SECOND, late)
        assert not second_set.switch(connection, the_change_in(connection))
        assert second_set.waiting(connection, SECOND) == 1


class Unable(Named):
    """A provider that no longer answers."""

    def __init__(self, error: Exception) -> None:
        super().__init__(MODEL)
        self.error = error

    def embed(self, _texts: Any) -> Any:
        raise self.error


@pytest.mark.parametrize("error", [EmbedderUnavailable("gone"), ModelError("another length")], ids=type)
def test_a_worker_whose_old_provider_is_gone_goes_on_with_the_new_model(
    changing: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    begin_worker(monkeypatch, changing, settings)
    monkeypatch.setattr("tasks.active_model.provider_of", lambda *_: (Unable(error), settings))
    assert resources.embedder().model == MODEL
    with changing.begin() as connection:
        assert second_set.switch(connection, the_change_in(connection))
    monkeypatch.setattr("tasks.active_model.provider_of", lambda *_: (Named(SECOND), settings))
    jobs = persist(changing, a_record("one"), reserved_seconds=60).jobs
    for _ in range(2):
        run(changing, "UPDATE embedding_jobs SET available_at = now()")
        embed_text(jobs)
    resources.embedder.cache_clear()
    assert ask(changing, "SELECT DISTINCT model FROM message_embeddings") == [{"model": SECOND}]


def test_an_undo_can_be_undone(changing: Engine) -> None:
    states = []
    for step in ("switch", "undo", "undo", "undo", "switch"):
        with changing.begin() as connection:
            if step == "switch":
                assert second_set.switch(connection, the_change_in(connection))
            else:
                reembedding.undo(connection)
            change = the_change_in(connection)
            states.append((change.state, change.model, change.old_model))
    assert states == [
        ("switched", SECOND, MODEL),
        ("running", MODEL, None),
        ("switched", SECOND, MODEL),
        ("running", MODEL, None),
        ("switched", MODEL, SECOND),
    ]
    assert ask(changing, "SELECT name FROM embedding_models WHERE active") == [{"name": MODEL}]


def test_only_what_somebody_was_asked_about_is_deleted(
    changing: Engine, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While the question stands on one terminal, the change is undone on another."""
    asked: list[str] = []

    def switch() -> None:
        with changing.begin() as connection:
            assert second_set.switch(connection, the_change_in(connection))

    def undone_meanwhile(question: str) -> bool:
        asked.append(question)
        with changing.begin() as connection:
            reembedding.undo(connection)
        switch()
        return True

    switch()
    monkeypatch.setattr("streams.confirmed", undone_meanwhile)
    assert reembed(settings, "forget-old") == 1
    assert asked == [f"Delete all vectors of {MODEL}? They can only be made anew."]
    assert f"by now this would delete all vectors of {SECOND}; nothing was changed" in capsys.readouterr().err
    change = the_change(changing)
    assert (change.state, change.model, change.old_model) == ("switched", MODEL, SECOND)


def test_settings_that_nobody_chose_are_an_error(
    database: Engine, chosen: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.begin() as connection:
        embeddings.register_model(connection, OLD, 384, providers.recorded(chosen))
    other = Settings(**{**chosen.__dict__, "embedding_provider": "openai", "openai_dimensions": "32"})
    monkeypatch.setattr(resources, "engine", lambda: database)
    monkeypatch.setattr("settings.load", lambda: other)
    monkeypatch.setattr(resources, "loaded", {})
    resources.embedder.cache_clear()
    with pytest.raises(ModelError, match=r"hashing-384, the provider makes text-embedding-3-small@32.*reembed"):
        resources.embedder()
    # As the message says: the command makes it right, at once.
    assert reembed(other, "--no-wait") == 0
    assert resources.embedder().model == OLD
    resources.embedder.cache_clear()


def begin_worker(monkeypatch: pytest.MonkeyPatch, database: Engine, chosen: Settings) -> None:
    """The worker's resources in this process, as they are at its start."""
    monkeypatch.setattr(resources, "engine", lambda: database)
    monkeypatch.setattr("settings.load", lambda: chosen)
    monkeypatch.setattr(resources, "loaded", {})
    resources.embedder.cache_clear()


def test_another_length_under_the_same_name_is_an_error(
    database: Engine, chosen: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vector of it would make every search fail."""
    here = Settings(**{**chosen.__dict__, "embedding_provider": "openai"})
    begin_worker(monkeypatch, database, here)
    assert resources.embedder().dimensions == 384
    gate.RequestHandlerClass = Shortened
    begin_worker(monkeypatch, database, here)
    with pytest.raises(ModelError, match=r"have 384 dimensions, the provider makes 50.*reembed"):
        resources.embedder()
    resources.embedder.cache_clear()

    def stored(_name: str | None) -> providers.StoredModel | None:
        with database.begin() as connection:
            return providers.active(connection)

    api = Model(here, stored)
    with pytest.raises(Unavailable, match="have 384 dimensions"):
        api.ready()


def test_a_change_that_is_begun_again_goes_by_its_new_settings(
    database: Engine, chosen: Settings, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_worker(monkeypatch, database, chosen)
    assert resources.embedder().model == OLD
    assert reembed(chosen, *OPTIONS, "--no-wait") == 0
    first = resources.second_embedder(NEW)
    assert resources.second_embedder(NEW) is first
    assert reembed(chosen, "undo", "--yes", "--no-wait") == 0
    with database.begin() as connection:
        while second_set.drop_piece(connection, the_change_in(connection)):
            pass
    assert resources.second_embedder(NEW) is first  # a task that came late: its jobs are gone
    with a_gate() as other:
        assert reembed(chosen, *OPTIONS, "--set", f"OPENAI_BASE_URL={other.url}", "--no-wait") == 0
        asked = len(other.requests)
        resources.second_embedder(NEW).embed(["one"])
        assert len(other.requests) > asked
    resources.embedder.cache_clear()
