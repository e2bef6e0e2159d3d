"""The APIs while Kafka, the bridge, the database or the right model is away: an honest answer within seconds."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import requests
from kafka.producer.transaction_manager import TransactionManager
from numpy.typing import NDArray
from psycopg2 import extensions
from sqlalchemy import Engine, text

from api import kafka_client, kafka_log, waits
from api.app import create_app
from api.kafka_log import KafkaAway, KafkaLog
from api.model import query_vector
from api.model_places import PLACES
from embedder import Embedder
from settings import Settings
from tests.embedder_parts import KEY, Gate
from tests.parts import Running, eventually

HTTP = requests.Session()
HTTP.trust_env = False


def post(settings: Settings, message: str, **more: object) -> requests.Response:
    url = f"http://127.0.0.1:{settings.text_api_port}/messages"
    return HTTP.post(url, json={"message": message, **more}, timeout=20)


def seconds(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def test_without_a_bridge_a_post_is_accepted_after_the_wait(settings: Settings, start: Callable[..., Running]) -> None:
    start("text-api", post_wait_seconds=0.5)
    answers = []
    assert seconds(lambda: answers.append(post(settings, "waits", id="note-1"))) < 4
    (answer,) = answers
    assert answer.status_code == 202
    assert set(answer.json()) == {"id", "status"}
    assert answer.json()["status"] == "accepted"
    assert answer.headers["Location"] == f"/messages/{answer.json()['id']}"
    url = f"http://127.0.0.1:{settings.text_api_port}/stats"
    eventually(lambda: HTTP.get(url, timeout=10).json()["lag"] == 1)
    assert HTTP.get(url, timeout=10).json()["messages"] == 0


def test_posts_that_wait_long_leave_threads_for_reads(settings: Settings, start: Callable[..., Running]) -> None:
    start("text-api", post_wait_seconds=5.0)
    with ThreadPoolExecutor(20) as threads:
        sent = [threads.submit(post, settings, f"waits {number}") for number in range(20)]
        time.sleep(3)  # not for a state to come: reads have to be quick while the posts wait
        url = f"http://127.0.0.1:{settings.text_api_port}/messages"
        assert seconds(lambda: HTTP.get(url, timeout=10).raise_for_status()) < 2
        assert {each.result().status_code for each in sent} == {202}


def test_a_deletion_that_came_later_ends_the_wait(settings: Settings, start: Callable[..., Running]) -> None:
    for part in ("bridge", "persist-worker", "text-api"):
        start(part, post_wait_seconds=20.0)
    assert post(settings, "first", id="note-1").status_code == 201
    url = f"http://127.0.0.1:{settings.text_api_port}/messages/note-1"
    assert HTTP.delete(url, timeout=20).status_code == 202
    eventually(lambda: HTTP.get(url, timeout=10).status_code == 404)
    assert post(settings, "again", id="note-1").status_code == 201


def test_what_only_the_database_refuses_is_answered_as_the_dead_letter_that_it_became(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    with database.begin() as connection:
        connection.execute(text("ALTER TABLE text_messages ADD CONSTRAINT no_secrets CHECK (message !~ 'secret')"))
    for part in ("bridge", "persist-worker", "text-api"):
        start(part, post_wait_seconds=20.0)
    answer = post(settings, "a secret", id="note-1")
    assert (answer.status_code, answer.json()["reason"]) == (400, "rejected")
    assert "no_secrets" in answer.json()["detail"]
    assert post(settings, "good", id="note-1").status_code == 201


def test_vectors_of_another_model_are_not_searched(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    start("search-api")
    search = f"http://127.0.0.1:{settings.search_api_port}/embeddings/search"
    answer = HTTP.post(search, json={"query": "cat"}, timeout=20)
    assert (answer.status_code, answer.json()["results"]) == (200, [])
    with database.begin() as connection:
        connection.execute(text("INSERT INTO embedding_models (name, dimensions, active) VALUES ('other', 3, TRUE)"))
    answer = HTTP.post(search, json={"query": "cat"}, timeout=20)
    assert answer.status_code == 503
    assert "other" in answer.json()["detail"]
    assert HTTP.post(search, json={"query": "cat", "mode": "keyword"}, timeout=20).status_code == 200
    health = HTTP.get(f"http://127.0.0.1:{settings.search_api_port}/health", timeout=20)
    assert health.status_code == 503
    assert "other" in health.json()["checks"]["model"]


def test_searches_that_wait_for_a_remote_model_leave_threads_for_all_else(
    settings: Settings, start: Callable[..., Running], gate: Gate
) -> None:
    start("search-api", embedding_provider="openai", openai_base_url=gate.url, openai_api_key=KEY)
    api = f"http://127.0.0.1:{settings.search_api_port}"

    def find(mode: str) -> requests.Response:
        return HTTP.post(f"{api}/embeddings/search", json={"query": "cat", "mode": mode}, timeout=25)

    assert find("semantic").status_code == 200
    gate.inside.clear()
    gate.open.clear()
    with ThreadPoolExecutor(20) as threads:
        try:
            sent = [threads.submit(find, ("semantic", "hybrid")[number % 2]) for number in range(20)]
            eventually(lambda: sum(each.done() for each in sent) == 20 - PLACES)
            assert len(gate.inside) == PLACES
            assert find("keyword").status_code == 200
            assert HTTP.get(f"{api}/metrics", timeout=10).status_code == 200
            page = HTTP.get(f"{api}/console/search?q=cat", timeout=10)
            assert (page.status_code, "mode keyword works" in page.text) == (200, True)
            refused = next(each.result() for each in sent if each.done())
            assert (refused.status_code, int(refused.headers["Retry-After"]) > 0) == (503, True)
            assert "mode keyword works" in refused.json()["detail"]
        finally:
            gate.open.set()
        assert sorted(each.result().status_code for each in sent) == [200] * PLACES + [503] * (20 - PLACES)
    assert find("semantic").status_code == 200


def test_a_query_that_took_long_to_embed_is_answered_all_the_same(
    settings: Settings, database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time that a call has for PostgreSQL goes on when PostgreSQL is asked again."""
    passed = [0.0]

    def slow(embedder: Embedder, query: str) -> NDArray[np.float32]:
        passed[0] += 3_600
        return query_vector(embedder, query)

    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + passed[0]))
    monkeypatch.setattr("api.search.query_vector", slow)
    app = create_app("search", settings)
    waits.bound()
    try:
        answer = app.test_client().post("/embeddings/search", json={"query": "cat", "mode": "hybrid"})
    finally:
        app.extensions["parts"].close()
        extensions.set_wait_callback(None)
    assert (answer.status_code, passed) == (200, [3_600])


def test_a_message_without_vectors_has_no_neighbours(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    start("search-api")
    with database.begin() as connection:
        message_id = connection.execute(
            text("INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), 'typed') RETURNING id::text")
        ).scalar_one()
    url = f"http://127.0.0.1:{settings.search_api_port}/embeddings/{message_id}/similar"
    answer = HTTP.get(url, timeout=20)
    assert answer.status_code == 409
    assert "pending" in answer.json()["detail"]


@pytest.mark.slow
def test_kafka_dies_and_comes_back(settings: Settings, kafka: Running, start: Callable[..., Running]) -> None:
    """The one Kafka of the session is stopped for some seconds, without a word, and goes on."""
    for part in ("bridge", "persist-worker", "text-api"):
        start(part)
    assert post(settings, "before", id="note-1").status_code == 201
    kafka.pause()
    try:
        answers: list[requests.Response] = []
        assert seconds(lambda: answers.append(post(settings, "during", id="note-1"))) < 8
        assert seconds(lambda: answers.append(post(settings, "during", id="note-1"))) < 1
        for answer in answers:
            assert answer.status_code == 503
            assert answer.json()["id"] == "note-1"
            assert int(answer.headers["Retry-After"]) > 0
        health = HTTP.get(f"http://127.0.0.1:{settings.text_api_port}/health", timeout=10)
        assert health.status_code == 503
        assert health.json()["checks"]["database"] == "ok"
        assert health.json()["checks"]["kafka"] != "ok"
        stats = HTTP.get(f"http://127.0.0.1:{settings.text_api_port}/stats", timeout=10)
        assert (stats.status_code, stats.json()["lag"]) == (200, None)
    finally:
        kafka.resume()
    eventually(lambda: post(settings, "after", id="note-1").status_code == 201, timeout=60)


def test_stopping_lets_a_waiting_post_finish(settings: Settings, start: Callable[..., Running]) -> None:
    running = start("text-api", post_wait_seconds=2.0)
    with ThreadPoolExecutor(1) as threads:
        sent = threads.submit(post, settings, "waits")
        eventually(lambda: HTTP.get(f"http://127.0.0.1:{settings.text_api_port}/stats", timeout=10).json()["lag"] == 1)
        running.stop()
        assert sent.result().status_code == 202


def test_records_that_kafka_never_takes_leave_no_threads_behind(
    settings: Settings, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brokers whose controllers are away tell where a topic is, and have no id for a producer."""
    monkeypatch.setattr(TransactionManager, "init_producer_id", lambda _: None)
    monkeypatch.setattr(kafka_client, "REQUEST_MS", 1_000)
    monkeypatch.setattr(kafka_log, "DELIVERY_MS", 1_000)
    before = set(threading.enumerate())
    log = KafkaLog(settings)
    with pytest.raises(KafkaAway):
        log.append([("key", b"a record")])
    eventually(lambda: log.away is None)
    log.close()
    eventually(lambda: set(threading.enumerate()) <= before)
