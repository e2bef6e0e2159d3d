"""The way of a record: what GET /trace and `cli.py trace` say of each of its ends, and what they say while Kafka is
away."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask.testing import FlaskClient
from kafka import KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from sqlalchemy import Engine, text

from api.app import create_app
from bridge import message
from clients import trace
from settings import ROOT, Settings
from tests.parts import eventually
from tests.pipeline import Pipeline

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def ask(pipeline: Pipeline, message_id: str, code: int = 200) -> dict[str, Any]:
    answer = pipeline.http.get(f"{pipeline.text_api}/trace/{message_id}", timeout=10)
    assert answer.status_code == code, answer.text
    return dict(answer.json())


def ask_place(pipeline: Pipeline, at: Any, code: int = 200) -> dict[str, Any]:
    place = {"partition": at.partition, "offset": at.offset, "topic": at.topic}
    answer = pipeline.http.get(f"{pipeline.text_api}/trace", params=place, timeout=10)
    assert answer.status_code == code, answer.text
    return dict(answer.json())


def steps(answer: dict[str, Any]) -> list[str]:
    return [step["step"] for step in answer["steps"]]


def cli(pipeline: Pipeline, *arguments: str, code: int = 0) -> str:
    ended = subprocess.run(
        [sys.executable, str(ROOT / "cli.py"), "--url", pipeline.text_api, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "NO_PROXY": "*"},
    )
    assert ended.returncode == code, ended.stderr
    return ended.stdout if code == 0 else ended.stderr


def test_the_way_of_a_record_from_its_producer_to_the_search(pipeline: Pipeline) -> None:
    source_id = f"trace/{uuid.uuid4()}"
    at = pipeline.produce(
        {"id": source_id, "text": "a text"}, key=source_id.encode(), headers=[("traceparent", TRACEPARENT.encode())]
    )
    message_id = pipeline.wait_until_ready(source_id)["id"]
    told = ask(pipeline, source_id)
    assert told == ask(pipeline, message_id) == ask_place(pipeline, at)
    assert (told["id"], told["source_id"], told["state"]) == (message_id, source_id, "searchable")
    assert steps(told) == ["logged", "stored", "embedded"]
    assert [step["seconds"] is None for step in told["steps"]] == [True, False, False]
    assert all(0 <= step["seconds"] < 15 for step in told["steps"][1:])
    record = told["record"]
    assert (record["topic"], record["partition"], record["offset"]) == (at.topic, at.partition, at.offset)
    assert (record["key"], record["in_log"], record["problem"]) == (source_id, True, None)
    assert record["headers"] == [{"name": "traceparent", "value": TRACEPARENT}]
    assert (told["embedding"]["model"], told["embedding"]["passages"]) == ("hashing-384", 1)

    shown = cli(pipeline, "trace", f"{at.topic}/{at.partition}/{at.offset}")
    assert shown.startswith(f"{source_id} = {message_id}: found by search\n")
    assert f"in Kafka: {at.topic}:{at.partition}:{at.offset}, key {source_id}, " in shown
    assert "embedded by hashing-384: 1 passage" in shown
    assert f"header traceparent: {TRACEPARENT}" in shown
    assert json.loads(cli(pipeline, "--json", "trace", message_id)) == told


def test_an_edit_supersedes_and_a_deletion_ends_it(pipeline: Pipeline) -> None:
    source_id = str(uuid.uuid4())
    first = pipeline.produce({"id": source_id, "text": "first"}, key=source_id.encode())
    second = pipeline.produce({"id": source_id, "text": "second"}, key=source_id.encode())
    eventually(lambda: ask_place(pipeline, second)["state"] == "searchable")
    told = ask_place(pipeline, first)
    assert (told["state"], steps(told), told["message"]) == ("superseded", ["logged"], None)
    assert (told["superseded_by"]["partition"], told["superseded_by"]["offset"]) == (second.partition, second.offset)
    gone = pipeline.produce(None, key=source_id.encode())
    eventually(lambda: ask(pipeline, source_id)["state"] == "deleted")
    told = ask(pipeline, source_id)
    assert (steps(told), told["record"]["offset"], told["record"]["value_bytes"]) == (
        ["logged", "deleted"],
        gone.offset,
        None,
    )
    assert ask_place(pipeline, gone) == told
    assert told["superseded_by"] is None
    told = ask_place(pipeline, first)
    assert (told["state"], told["superseded_by"]["offset"]) == ("deleted", gone.offset)
    assert "no value: a deletion" in cli(pipeline, "trace", source_id)


def test_a_dead_letter_is_found_by_its_place_its_key_and_the_id_in_it(pipeline: Pipeline) -> None:
    by_key, by_value = f"k-{uuid.uuid4()}", f"v-{uuid.uuid4()}"
    at = pipeline.produce(b"\x1b[2J{", key=by_key.encode())
    pipeline.produce({"id": by_value, "text": 7})
    pipeline.produce({"id": "other", "text": [by_value]})
    told = eventually(lambda: a_letter(ask_place(pipeline, at)))
    assert told is not None
    assert steps(told) == ["logged", "dead_letter"]
    assert told["dead_letters"][0]["reason"] == "invalid-json"
    assert ask(pipeline, by_key)["record"]["offset"] == at.offset
    found = eventually(lambda: a_letter(pipeline.http.get(f"{pipeline.text_api}/trace/{by_value}", timeout=10).json()))
    assert found is not None
    assert [letter["reason"] for letter in found["dead_letters"]] == ["invalid-text"]
    assert "dead letter: invalid-json" in cli(pipeline, "trace", by_key)
    assert "dead letter: invalid-json" in cli(pipeline, "trace", f"{at.topic}:{at.partition}:{at.offset}")


def a_letter(answer: dict[str, Any]) -> dict[str, Any] | None:
    return answer if answer.get("state") == "dead_letter" else None


def test_what_is_not_there_is_not_found(pipeline: Pipeline) -> None:
    assert "nothing is known of" in ask(pipeline, "no-such-id", 404)["detail"]
    assert "no such-id" not in ask(pipeline, "x" * 300, 404)["detail"]
    places: list[tuple[dict[str, Any], int]] = [
        ({"partition": 0, "offset": 10**15}, 404),
        ({"partition": 999, "offset": 0}, 404),
        ({"partition": 0, "offset": 0, "topic": "elsewhere"}, 404),
        ({"partition": -1, "offset": 0}, 400),
        ({"partition": 0}, 400),
    ]
    for place, code in places:
        answer = pipeline.http.get(f"{pipeline.text_api}/trace", params=place, timeout=10)
        assert answer.status_code == code, place
    assert cli(pipeline, "trace", "no-such-id", code=1).startswith("cli.py: 404")
    assert cli(pipeline, "trace", "elsewhere/0/7", code=1).startswith("cli.py: 404")


# --- What only a database can say, without the other parts ---


@pytest.fixture
def client(settings: Settings, database: Engine, topic: str) -> Iterator[FlaskClient]:
    app = create_app("text", settings)
    yield app.test_client()
    app.extensions["parts"].close()


def look(client: FlaskClient, path: str) -> dict[str, Any]:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return dict(answer.get_json())


def store(engine: Engine, version: tuple[int, int, int] = (-1, -1, -1)) -> str:
    message_id = str(uuid.uuid4())
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO text_messages (id, message, version_timestamp, version_partition, version_offset)
                VALUES (:id, 'a text', :t, :p, :o)
            """),
            {"id": message_id, **dict(zip("tpo", version, strict=True))},
        )
    return message_id


def test_a_text_that_waits_says_since_when(client: FlaskClient, database: Engine) -> None:
    message_id = store(database)
    told = look(client, f"/trace/{message_id}")
    assert (told["state"], steps(told), told["record"]) == ("waiting", ["stored", "queued"], None)
    assert (told["job"]["attempts"], told["job"]["held"]) == (0, False)
    with database.begin() as connection:
        connection.execute(
            text("""
                UPDATE embedding_jobs SET attempts = 2, lease = :lease,
                    available_at = now() + interval '1 min', created_at = now() - interval '5 min'
            """),
            {"lease": str(uuid.uuid4())},
        )
    job = look(client, f"/trace/{message_id}")["job"]
    assert (job["attempts"], job["held"]) == (2, True)


def test_a_text_that_cannot_be_embedded_says_why(client: FlaskClient, database: Engine) -> None:
    message_id = store(database)
    with database.begin() as connection:
        connection.execute(text("DELETE FROM embedding_jobs"))
        connection.execute(
            text("""
                INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
                SELECT id, content_hash, 'm', 'too odd', 5 FROM text_messages
            """)
        )
    told = look(client, f"/trace/{message_id}")
    assert (told["state"], steps(told)) == ("failed", ["stored", "failed"])
    assert told["failure"] == {"reason": "too odd", "attempts": 5, "model": "m"}
    with database.begin() as connection:
        connection.execute(text("UPDATE embedding_failures SET content_hash = gen_random_uuid()"))  # of another text
    assert look(client, f"/trace/{message_id}")["state"] == "waiting"


def test_a_row_that_somebody_deleted_is_deleted(client: FlaskClient, database: Engine) -> None:
    message_id = store(database, (5_000, 1, 7))
    with database.begin() as connection:
        connection.execute(text("DELETE FROM text_messages"))
    told = look(client, f"/trace/{message_id}")
    assert (told["state"], steps(told), told["record"]["in_log"]) == ("deleted", ["logged", "deleted"], False)


def test_a_record_that_the_log_has_lost_is_found_by_its_version(
    client: FlaskClient, settings: Settings, database: Engine
) -> None:
    with KafkaProducer(**settings.kafka_client()) as producer:
        at = producer.send(settings.kafka_topic, b'{"text":"x"}', partition=2).get(timeout=10)
    place = f"/trace?partition=2&offset={at.offset}"
    assert look(client, place)["state"] == "on_its_way"
    message_id = store(database, (at.timestamp, 2, at.offset))
    admin = KafkaAdminClient(**settings.kafka_client())
    admin.delete_records({TopicPartition(settings.kafka_topic, 2): at.offset + 1})
    admin.close()
    told = look(client, place)
    assert (told["id"], told["state"], told["record"]["in_log"]) == (message_id, "waiting", False)
    assert "does not hold it any more" in told["record"]["problem"]


def test_the_dead_letters_of_a_message_are_told_by_either_form_of_its_id(client: FlaskClient, database: Engine) -> None:
    message_id, _ = message.message_id("note-1")
    with database.begin() as connection:
        connection.execute(
            text("INSERT INTO text_messages (id, source_id, message) VALUES (:id, 'note-1', 'a text')"),
            {"id": message_id},
        )
        connection.execute(
            text("""
                INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, key)
                VALUES ('texts', 1, 7, 5000, 'missing-text', 'an edit without a text', 'note-1')
            """)
        )
    told = look(client, f"/trace/{message_id}")
    assert told == look(client, "/trace/note-1")
    assert [letter["offset"] for letter in told["dead_letters"]] == [7]


def test_a_dead_letter_of_a_topic_that_was_read_before_is_told_by_its_id(
    client: FlaskClient, database: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    with database.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, key)
                VALUES ('read-before', 1, 7, 5000, 'missing-text', 'no text', 'note-1')
            """)
        )
    told = look(client, "/trace/note-1")
    assert told == look(client, "/trace?topic=read-before&partition=1&offset=7")
    trace.show(told)
    assert "in Kafka: read-before:1:7" in capsys.readouterr().out


def test_with_kafka_away_the_database_still_tells(settings: Settings, database: Engine) -> None:
    message_id = store(database, (5_000, 1, 7))
    app = create_app("text", replace(settings, kafka_port=1))
    client = app.test_client()
    told = look(client, f"/trace/{message_id}")
    assert (told["state"], told["record"]["in_log"]) == ("waiting", None)
    assert "Kafka does not answer" in told["record"]["problem"]
    assert look(client, "/trace?partition=1&offset=7")["id"] == message_id
    answer = client.get("/trace?partition=1&offset=8")
    assert (answer.status_code, "Kafka does not answer" in answer.get_json()["detail"]) == (404, True)
    app.extensions["parts"].close()
