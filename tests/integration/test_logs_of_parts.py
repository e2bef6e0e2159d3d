"""What the parts really write with LOG_FORMAT=json: objects only, a record's way from part to part, and no text."""

import json
import socket
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest
import requests
from kafka import KafkaProducer
from sqlalchemy import Engine, text

from api.console import actions
from settings import Settings
from tests.parts import Running, eventually, stop_all

PARTS = ("bridge", "persist-worker", "embed-worker", "beat", "text-api", "search-api")
SECRET = "a text of which no log may know"
FORGED = f'{SECRET}\n{{"level": "CRITICAL", "message": "forged"}}\r\x1b[2J'


def lines(running: Running) -> list[dict[str, Any]]:
    return [an_object(line) for line in running.log.read_text().split("\n")[:-1]]


def an_object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    assert isinstance(found, dict), f"no JSON object: {line!r}"
    assert {"time", "level", "logger", "message", "process"} <= set(found), line
    return found


@pytest.mark.parametrize("workers", [1, 2])  # one works itself, two are the children of a third
def test_a_record_can_be_followed_and_no_part_writes_its_text(
    settings: Settings, database: Engine, postgres: Running, start: Callable[..., Running], workers: int
) -> None:
    chosen = {"log_format": "json", "log_level": "DEBUG", "persist_workers": workers, "embed_workers": workers}
    parts = {name: start(name, **chosen) for name in PARTS}
    message_id = str(uuid.uuid4())
    with KafkaProducer(**settings.kafka_client()) as producer:
        bad = producer.send(settings.kafka_topic, FORGED.encode(), key=FORGED.encode(), partition=0).get(timeout=10)
        value = json.dumps({"id": message_id, "text": SECRET, "metadata": {"m": SECRET}})
        at = producer.send(settings.kafka_topic, value.encode(), headers=[(FORGED, FORGED.encode())]).get(timeout=10)
        # The database refuses it: the lines tell of an error and its neighbours.
        with database.begin() as connection:
            connection.execute(
                text("ALTER TABLE text_messages ADD CONSTRAINT picky CHECK (message NOT LIKE '%refused%')")
            )
        refused = {"id": str(uuid.uuid4()), "text": f"refused {SECRET}"}
        producer.send(settings.kafka_topic, json.dumps(refused).encode()).get(timeout=10)
    # A task of another release, say.
    sender = actions.connect(settings)
    sender.send_task("tasks.nobody_knows", args=[SECRET], queue="persist", argsrepr="(1)", kwargsrepr="{}")
    for port, path in ((settings.text_api_port, f"/messages/{SECRET}%0aforged"), (settings.search_api_port, "/status")):
        requests.get(f"http://127.0.0.1:{port}{path}", timeout=10)
    with socket.create_connection(("127.0.0.1", settings.text_api_port), timeout=10) as client:
        client.sendall(f"GET /messages/{SECRET} HTTP/1.1\r\n\r\n".encode())
        assert b" 400 " in client.recv(100)

    def told() -> bool:
        def of(part: str, did: str) -> dict[str, Any]:
            found = [line for line in lines(parts[part]) if line["message"] == did and line.get("id") == message_id]
            assert len(found) == 1, (part, did, found)
            return found[0]

        handed, stored = of("bridge", "handed over"), of("persist-worker", "stored")
        place = {"topic": settings.kafka_topic, "partition": at.partition, "offset": at.offset}
        assert place.items() <= handed.items()
        assert place.items() <= stored.items()
        assert handed["task_id"] == stored["task_id"]
        assert of("embed-worker", "embedded")["task_id"] != stored["task_id"]
        letters = [line for line in lines(parts["bridge"]) if line["message"].startswith("dead letter")]
        assert any(line["offset"] == bad.offset and "invalid-json" in line["message"] for line in letters)
        assert any("unregistered task" in line["message"] for line in lines(parts["persist-worker"]))
        return any(
            refused["id"] == line.get("id") and line["level"] == "WARNING" for line in lines(parts["persist-worker"])
        )

    eventually(told, 30)
    stop_all(parts.values())  # what they say at their end is said in the same form
    for name, running in parts.items():
        found = lines(running)
        assert found, name
        assert not [line for line in found if line["logger"] == "celery.pool" and line["level"] == "DEBUG"]
        written = running.log.read_text().splitlines()
        assert [line for line in written if SECRET in line or quote(SECRET) in line] == [], name
        assert not [line for line in found if line["message"] == "forged"]
    refusals = postgres.log.read_text()
    assert "violates check constraint" in refusals
    assert SECRET not in refusals
    unreadable = "Invalid request from ip=127.0.0.1: Invalid HTTP Version"
    assert unreadable in [line["message"] for line in lines(parts["text-api"])]
    processes = {
        name: {line["process"].partition("@")[0] for line in lines(running)} for name, running in parts.items()
    }
    assert processes == {
        "bridge": {f"bridge-{replace(settings).bridge_id or 0}"},
        "persist-worker": {"persist"},
        "embed-worker": {"embed"},
        "beat": {"beat"},
        "text-api": {"text-api"},
        "search-api": {"search-api"},
    }


def test_at_info_no_record_makes_a_line(settings: Settings, database: Engine, start: Callable[..., Running]) -> None:
    parts = [start(name) for name in ("bridge", "persist-worker", "embed-worker")]
    before = [len(part.log.read_text().splitlines()) for part in parts]
    with KafkaProducer(**settings.kafka_client()) as producer:
        for number in range(300):
            producer.send(settings.kafka_topic, json.dumps({"text": f"text {number}"}).encode())
        for _ in range(300):
            producer.send(settings.kafka_topic, b"{")

    def done() -> bool:
        with database.connect() as connection:
            stored, ready, dead = connection.execute(
                text("""SELECT (SELECT count(*) FROM text_messages), (SELECT count(*) FROM message_embeddings),
                               (SELECT count(*) FROM dead_letters)""")
            ).one()
        return (stored, ready, dead) == (300, 300, 300)

    eventually(done, 30)
    for part, lines_before in zip(parts, before, strict=True):
        assert len(part.log.read_text().splitlines()) - lines_before < 30, part.log_tail()
