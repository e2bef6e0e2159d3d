"""A text's way through the running pipeline, seen from outside: Kafka, REST or psql in, the two APIs out."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import psycopg2
import pytest
import redis

from bridge.message import message_id
from tests.parts import eventually
from tests.pipeline import Pipeline

SECONDS_BY_HAND = 2.0  # contract: what is typed into psql reaches the search within two seconds


@pytest.fixture
def word() -> str:
    """A word that no other test uses; with the hashing provider a search for it finds just its message."""
    return "w" + uuid.uuid4().hex


@pytest.fixture
def psql(pipeline: Pipeline) -> Iterator[Any]:
    settings = pipeline.settings
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        user=settings.database_user,
        password=settings.database_password,
        dbname=settings.database_name,
    )
    connection.autocommit = True
    with connection.cursor() as cursor:
        yield cursor
    connection.close()


def found(pipeline: Pipeline, word: str) -> list[str]:
    """The ids of the messages in which a search finds the word."""
    return [hit["id"] for hit in pipeline.search(word, limit=5) if word in hit["message"]]


def test_a_record_is_found_by_search_and_by_either_id(pipeline: Pipeline, word: str) -> None:
    pipeline.produce({"id": f"source-{word}", "text": f"hello {word}", "metadata": {"n": 1.50}})
    ready = pipeline.wait_until_ready(f"source-{word}")
    assert ready["id"] == message_id(f"source-{word}")[0]
    assert (ready["source_id"], ready["message"]) == (f"source-{word}", f"hello {word}")
    assert pipeline.message(ready["id"]) == ready
    hit = pipeline.search(word)[0]
    assert (hit["id"], hit["passage"], hit["metadata"]) == (ready["id"], f"hello {word}", {"n": 1.5})
    assert 0 < hit["score"] <= 1


def test_an_edit_and_a_tombstone_through_kafka(pipeline: Pipeline, word: str) -> None:
    key = word.encode()
    pipeline.produce({"id": word, "text": f"first {word}"}, key=key)
    first = pipeline.wait_until_ready(word)
    pipeline.produce({"id": word, "text": "second"}, key=key)
    eventually(lambda: (pipeline.message(word) or {})["message"] == "second")
    assert found(pipeline, word) == []
    assert pipeline.wait_until_ready(word)["created_at"] == first["created_at"]
    pipeline.produce(None, key=key)
    eventually(lambda: pipeline.message(word) is None)


def test_an_unchanged_text_moves_no_time_and_costs_no_embedding(pipeline: Pipeline, psql: Any, word: str) -> None:
    pipeline.send(word, id=word)
    before = pipeline.wait_until_ready(word)
    psql.execute("SELECT id FROM message_embeddings WHERE message_id = %s", [before["id"]])
    vector = psql.fetchone()
    pipeline.send(word, id=word, metadata={"seen": 2})
    after = eventually(lambda: (m := pipeline.message(word)) and m["metadata"] == {"seen": 2} and m)
    assert after == before | {"metadata": {"seen": 2}}
    psql.execute("SELECT id FROM message_embeddings WHERE message_id = %s", [before["id"]])
    assert psql.fetchone() == vector


def test_what_is_typed_into_psql_reaches_the_search_within_two_seconds(
    pipeline: Pipeline, psql: Any, word: str
) -> None:
    row = str(uuid.uuid4())
    pipeline.wait_until_ready(pipeline.send("warms everything up"))

    def within(check: Any, what: str) -> None:
        start = time.monotonic()
        eventually(check, timeout=15)
        took = time.monotonic() - start
        assert took < SECONDS_BY_HAND * 2, (
            f"{what} took {took:.1f} s"
        )  # twice, for a machine that does other things too

    psql.execute("INSERT INTO text_messages (id, message) VALUES (%s, %s)", [row, f"typed {word}"])
    within(lambda: found(pipeline, word) == [row], "insert")
    psql.execute("UPDATE text_messages SET message = %s WHERE id = %s", [f"other{word}", row])
    assert found(pipeline, word) == []
    within(lambda: found(pipeline, f"other{word}") == [row], "update")
    psql.execute("DELETE FROM text_messages WHERE id = %s", [row])
    assert found(pipeline, f"other{word}") == []
    psql.execute("SELECT count(*) FROM message_embeddings WHERE message_id = %s", [row])
    assert psql.fetchone() == (0,)


def test_many_rows_in_one_statement_are_all_embedded(pipeline: Pipeline, psql: Any, word: str) -> None:
    psql.execute(
        "INSERT INTO text_messages (id, message) SELECT gen_random_uuid(), %s || n FROM generate_series(1, 1200) n",
        [word],
    )

    def embedded() -> bool:
        psql.execute(
            """SELECT count(*) FROM text_messages m JOIN message_embeddings e
               ON e.message_id = m.id AND e.content_hash = m.content_hash WHERE m.message LIKE %s""",
            [word + "%"],
        )
        return bool(psql.fetchone() == (1200,))

    eventually(embedded, timeout=30)
    psql.execute("DELETE FROM text_messages WHERE message LIKE %s", [word + "%"])


def test_what_is_done_leaves_no_result_in_redis(pipeline: Pipeline, psql: Any, word: str) -> None:
    """The bridge deletes those that it has read. Of what beat sends there is none, though beat does not know the tasks
    that say so."""
    broker = redis.from_url(pipeline.settings.redis_address)

    def results() -> set[bytes | str]:
        return set(broker.keys("celery-task-meta-*"))

    before = results()
    pipeline.wait_until_ready(pipeline.send(word))
    row = str(uuid.uuid4())
    psql.execute("INSERT INTO text_messages (id, message) VALUES (%s, %s)", [row, word])
    pipeline.wait_until_ready(row)  # only a sweep finds it
    eventually(lambda: results() <= before, timeout=5)


def test_a_deleted_message_does_not_come_back_with_an_older_record(pipeline: Pipeline, psql: Any, word: str) -> None:
    sent = pipeline.produce({"id": word, "text": word})
    row = pipeline.wait_until_ready(word)["id"]
    psql.execute("DELETE FROM text_messages WHERE id = %s", [row])
    headers = {"topic": sent.topic, "partition": sent.partition, "offset": sent.offset, "timestamp": sent.timestamp}
    pipeline.produce(
        {"id": word, "text": word},
        headers=[(f"dead-letter-{name}", str(value).encode()) for name, value in headers.items()],
    )
    pipeline.wait_until_ready(pipeline.send("behind it"))
    assert pipeline.message(word) is None
    pipeline.produce({"id": word, "text": "a new one"})
    assert pipeline.wait_until_ready(word)["message"] == "a new one"


def test_post_waits_until_the_message_is_stored(pipeline: Pipeline, word: str) -> None:
    answer = pipeline.http.post(f"{pipeline.text_api}/messages", json={"message": word, "id": word}, timeout=10)
    assert answer.status_code == 201, answer.text
    assert answer.json()["message"] == word
    again = pipeline.http.post(f"{pipeline.text_api}/messages", json={"message": word, "id": word}, timeout=10)
    assert again.status_code == 201
    assert again.json()["processed_at"] == answer.json()["processed_at"]
    pipeline.wait_until_ready(word)
    gone = pipeline.http.delete(f"{pipeline.text_api}/messages/{word}", timeout=10)
    assert gone.status_code == 202
    eventually(lambda: pipeline.message(word) is None)


def test_a_long_text_is_one_hit_with_the_passage_that_fits(pipeline: Pipeline, word: str) -> None:
    filler = "Nothing of interest is said in this sentence. " * 60
    # The filter, because the stub's vectors are like one another by chance, and the tests before have left many texts.
    metadata = {"long": word}
    name = pipeline.send(f"{filler}The {word} lies here. {filler}", id=f"long-{word}", metadata=metadata)
    pipeline.wait_until_ready(name)
    hits = pipeline.search(f"the {word} lies here", limit=10, filter=metadata)
    assert [hit["source_id"] for hit in hits] == [name]
    assert word in hits[0]["passage"]
    assert len(hits[0]["passage"]) < len(hits[0]["message"]) / 2


def test_both_apis_tell_the_same_when_all_is_done(pipeline: Pipeline, word: str) -> None:
    pipeline.wait_until_ready(pipeline.send(word))

    def settled() -> bool:
        status = pipeline.http.get(f"{pipeline.search_api}/status", timeout=10).json()
        stats = pipeline.http.get(f"{pipeline.text_api}/stats", timeout=10).json()
        return bool(
            status["status"] == "up_to_date"
            and status["pending"] == stats["pending"] == stats["lag"] == 0
            and status["embedded"] == stats["embeddings"] == stats["messages"]
        )

    eventually(settled, timeout=30)


def test_a_record_that_is_bad_shows_in_the_stats_and_stops_nobody(pipeline: Pipeline, word: str) -> None:
    def dead() -> int:
        return int(pipeline.http.get(f"{pipeline.text_api}/stats", timeout=10).json()["dead_letters"])

    before = dead()
    pipeline.produce(b"\xff\xfe" + json.dumps({"text": word}).encode())
    pipeline.wait_until_ready(pipeline.send(word))
    eventually(lambda: dead() == before + 1)
