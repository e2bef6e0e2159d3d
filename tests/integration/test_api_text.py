"""The text API on the running pipeline, call by call as the contract has them."""

import json
import socket
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
import requests

from tests.parts import eventually
from tests.pipeline import Pipeline

MEMBERS = {"id", "source_id", "message", "metadata", "created_at", "processed_at", "embedding"}


def post(pipeline: Pipeline, body: object, path: str = "/messages") -> requests.Response:
    return pipeline.http.post(pipeline.text_api + path, json=body, timeout=15)


def get(pipeline: Pipeline, path: str) -> requests.Response:
    return pipeline.http.get(pipeline.text_api + path, timeout=15)


def new_id() -> str:
    return f"api-{uuid.uuid4()}"


def test_a_post_is_answered_with_the_stored_message(pipeline: Pipeline) -> None:
    answer = post(pipeline, {"message": "Hello over REST", "metadata": {"lang": "en"}})
    assert answer.status_code == 201
    message = answer.json()
    assert set(message) == MEMBERS
    assert message["message"] == "Hello over REST"
    assert message["metadata"] == {"lang": "en"}
    assert message["source_id"] is None
    assert str(uuid.UUID(message["id"])) == message["id"]
    assert answer.headers["Location"] == f"/messages/{message['id']}"
    assert get(pipeline, answer.headers["Location"]).json()["created_at"] == message["created_at"]
    assert pipeline.wait_until_ready(message["id"])["embedding"] == "ready"


@pytest.mark.parametrize(
    "given", ["{}", "a/b//{}/", "/{}", "{} ü 😀 \n?#%25&+", "{}" + "😀" * 200, "..{}", "{}/similar"], ids=ascii
)
def test_any_string_may_be_an_id(pipeline: Pipeline, given: str) -> None:
    given = given.format(uuid.uuid4().hex)
    answer = post(pipeline, {"message": "with an id", "id": given})
    assert answer.status_code == 201
    assert answer.json()["source_id"] == given
    for form in (quote(given, safe=""), answer.json()["id"], answer.json()["id"].upper()):
        assert get(pipeline, f"/messages/{form}").json()["id"] == answer.json()["id"]
    deleted = pipeline.http.delete(f"{pipeline.text_api}/messages/{quote(given, safe='')}", timeout=15)
    assert deleted.status_code == 202
    assert deleted.json() == {"id": answer.json()["id"], "status": "accepted"}
    eventually(lambda: get(pipeline, f"/messages/{answer.json()['id']}").status_code == 404)
    assert pipeline.http.delete(f"{pipeline.text_api}/messages/{answer.json()['id']}", timeout=15).status_code == 404


def test_a_typed_row_with_the_source_id_of_another_is_deleted_alone(
    pipeline: Pipeline, owner: psycopg2.extensions.cursor
) -> None:
    name = uuid.uuid4().hex
    ours = post(pipeline, {"message": "came by Kafka", "id": name}).json()["id"]
    for source_id in (name, "x" * 300, str(uuid.uuid4())):
        typed = str(uuid.uuid4())
        owner.execute("INSERT INTO text_messages (id, message, source_id) VALUES (%s, 'typed', %s)", (typed, source_id))
        assert pipeline.http.delete(f"{pipeline.text_api}/messages/{typed}", timeout=15).status_code == 202
        assert get(pipeline, f"/messages/{typed}").status_code == 404
    assert get(pipeline, f"/messages/{ours}").status_code == 200


def test_an_upper_case_uuid_is_the_same_message(pipeline: Pipeline) -> None:
    given = str(uuid.uuid4()).upper()
    assert post(pipeline, {"message": "upper", "id": given}).json()["id"] == given.lower()
    assert get(pipeline, f"/messages/{given}").json()["source_id"] is None


def test_posting_again_replaces_the_text(pipeline: Pipeline) -> None:
    given = new_id()
    assert post(pipeline, {"message": "first", "id": given}).status_code == 201
    again = post(pipeline, {"message": "second", "id": given})
    assert (again.status_code, again.json()["message"]) == (201, "second")
    # A text that has not changed is answered as quickly: the record only moves the version forward.
    began = time.monotonic()
    assert post(pipeline, {"message": "second", "id": given}).status_code == 201
    assert time.monotonic() - began < 4


def test_metadata_keep_every_digit(pipeline: Pipeline) -> None:
    metadata = '{"a": 0.10000000000000000000000001, "b": 1.10, "c": 12345678901234567890123, "d": 1e400}'
    body = f'{{"message": "exact", "metadata": {metadata}}}'.encode()
    answer = pipeline.http.post(
        f"{pipeline.text_api}/messages", data=body, headers={"Content-Type": "application/json"}, timeout=15
    )
    assert answer.status_code == 201
    for text in (answer.text, get(pipeline, f"/messages/{answer.json()['id']}").text):
        for digits in ("0.10000000000000000000000001", "1.10", "12345678901234567890123", "1" + "0" * 400):
            assert digits in text


def test_an_enormous_number_in_one_message_harms_no_listing(pipeline: Pipeline) -> None:
    body = b'{"message": "enormous", "metadata": {"a": ' + b"9" * 10_000 + b"}}"
    answer = pipeline.http.post(
        f"{pipeline.text_api}/messages", data=body, headers={"Content-Type": "application/json"}, timeout=15
    )
    assert answer.status_code == 201
    page = get(pipeline, "/messages?limit=5")
    assert page.status_code == 200
    assert b"9." + b"9" * 9_999 + b"E+9999" in page.content, "every digit, and short enough for any client"
    assert page.json()["count"] > 0


def test_a_batch_is_accepted_with_its_ids(pipeline: Pipeline) -> None:
    given = new_id()
    answer = post(pipeline, {"messages": [{"message": "one", "id": given}, {"message": "two"}]}, "/messages/batch")
    assert answer.status_code == 202
    assert set(answer.json()) == {"ids", "count"}
    assert answer.json()["count"] == 2
    for message_id, text in zip(answer.json()["ids"], ("one", "two"), strict=True):
        assert pipeline.wait_until_ready(message_id)["message"] == text
    assert get(pipeline, f"/messages/{given}").json()["id"] == answer.json()["ids"][0]


def test_a_batch_takes_a_thousand(pipeline: Pipeline) -> None:
    answer = post(pipeline, {"messages": [{"message": f"thousand {i}"} for i in range(1000)]}, "/messages/batch")
    assert (answer.status_code, answer.json()["count"]) == (202, 1000)
    pipeline.wait_until_ready(answer.json()["ids"][-1])


def test_of_a_batch_with_a_bad_message_nothing_is_sent(pipeline: Pipeline) -> None:
    given = new_id()
    answer = post(pipeline, {"messages": [{"message": "good", "id": given}, {"message": ""}]}, "/messages/batch")
    assert (answer.status_code, answer.json()["reason"]) == (400, "invalid-text")
    post(pipeline, {"message": "later"})
    assert get(pipeline, f"/messages/{given}").status_code == 404


def test_pages_go_through_all_messages_newest_first(pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    sent = [post(pipeline, {"message": f"{word} {i}"}).json()["id"] for i in range(5)]
    found: list[str] = []
    cursor = ""
    for _ in range(5):
        page = get(pipeline, f"/messages?limit=2&q={word}{cursor}").json()
        assert set(page) == {"messages", "count", "next"}
        assert page["count"] == len(page["messages"])
        found += [message["id"] for message in page["messages"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == sent[::-1]
    newest = get(pipeline, "/messages").json()
    assert newest["count"] <= 10
    times = [message["created_at"] for message in newest["messages"]]
    assert times == sorted(times, reverse=True)


def test_a_page_may_end_at_a_time_that_only_psql_can_type(
    pipeline: Pipeline, owner: psycopg2.extensions.cursor
) -> None:
    word = f"w{uuid.uuid4().hex}"
    for created_at in ("infinity", "infinity", "0044-03-15 BC"):
        owner.execute("INSERT INTO text_messages (id, message, created_at) VALUES (%s, %s, %s)",
                      [str(uuid.uuid4()), word, created_at])  # fmt: skip
    first = get(pipeline, f"/messages?limit=1&q={word}").json()
    second = get(pipeline, f"/messages?limit=1&q={word}&cursor={first['next']}").json()
    third = get(pipeline, f"/messages?limit=1&q={word}&cursor={second['next']}").json()
    times = [page["messages"][0]["created_at"] for page in (first, second, third)]
    assert times == ["infinity", "infinity", "0044-03-15T00:00:00+00:00 BC"]
    owner.execute("DELETE FROM text_messages WHERE message = %s", [word])


@pytest.fixture
def owner(pipeline: Pipeline) -> Any:
    settings = pipeline.settings
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        user=settings.database_user,
        password=settings.database_password,
        dbname=settings.database_name,
    )
    connection.autocommit = True
    yield connection.cursor()
    connection.close()


def test_stats_count_everything(pipeline: Pipeline) -> None:
    post(pipeline, {"message": "counted"})

    def stats() -> dict[str, Any]:
        return dict(get(pipeline, "/stats").json())

    eventually(lambda: stats()["pending"] == 0 and stats()["lag"] == 0)
    found = stats()
    assert set(found) == {"messages", "embeddings", "pending", "failed", "dead_letters", "lag", "per_minute"}
    assert found["messages"] >= 1
    assert len(found["per_minute"]) == 60
    assert found["per_minute"][-1]["messages"] + found["per_minute"][-2]["messages"] >= 1


def test_a_bad_record_counts_as_a_dead_letter(pipeline: Pipeline) -> None:
    before = get(pipeline, "/stats").json()["dead_letters"]
    pipeline.produce(b"{")
    eventually(lambda: get(pipeline, "/stats").json()["dead_letters"] > before)


def test_health_and_metrics(pipeline: Pipeline) -> None:
    assert get(pipeline, "/health").json() == {
        "status": "ok",
        "checks": {"database": "ok", "kafka": "ok", "broker": "ok"},
    }
    metrics = get(pipeline, "/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    assert "http_requests_total{" in metrics.text


@pytest.mark.parametrize("size", [5_000_000, 30_000_000])
def test_a_client_that_sends_far_too_much_gets_its_answer(pipeline: Pipeline, size: int) -> None:
    answer = pipeline.http.post(
        f"{pipeline.text_api}/messages", data=b"x" * size, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code == 413
    chunks = iter([b'{"message": "'] + [b"x" * 65_536] * (size // 65_536))
    answer = pipeline.http.post(
        f"{pipeline.text_api}/messages", data=chunks, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert answer.status_code == 413
    assert answer.json()["status"] == 413


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /messages?q=" + b"a" * 9_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /stats HTTP/1.1\r\nHost: x\r\n" + b"X-Many: 1\r\n" * 200 + b"\r\n", 431),
        (b"GET /messages HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n", 400),
        (b"\x16\x03\x01\r\n\r\n", 400),
        ("GET /messages?q=größe HTTP/1.1\r\nHost: x\r\n\r\n".encode(), 400),
        (
            b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
            400,
        ),
        (
            b"POST /messages HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b'Content-Length: 100\r\n\r\n{"message": "cut, but JSON"}',
            400,
        ),
    ],
    ids=["long address", "many headers", "no length", "no request", "raw UTF-8", "no chunk", "cut"],
)
def test_a_request_that_the_server_cannot_read_is_a_problem_too(
    pipeline: Pipeline, request_: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", pipeline.settings.text_api_port), timeout=10) as client:
        client.sendall(request_)
        client.shutdown(socket.SHUT_WR)
        with HTTPResponse(client) as answer:
            answer.begin()
            assert answer.status == status
            assert answer.getheader("Content-Type") == "application/problem+json"
            problem = json.loads(answer.read())
    assert problem["status"] == status
    assert problem["detail"]
    if "ö".encode() in request_:
        assert "percent-encode the path and query as UTF-8" in problem["detail"]


def test_a_record_that_kafka_would_refuse_is_413(pipeline: Pipeline) -> None:
    answer = post(pipeline, {"message": "x", "metadata": {"a": "z" * 1_100_000}})
    assert answer.status_code == 413
    assert "Kafka" in answer.json()["detail"]


def test_the_api_can_write_nothing(pipeline: Pipeline) -> None:
    settings = pipeline.settings
    connection = psycopg2.connect(
        host=settings.database_address,
        port=settings.database_port,
        user=settings.database_reader_user,
        password=settings.database_reader_password,
        dbname=settings.database_name,
    )
    with connection.cursor() as cursor:
        cursor.execute("SET default_transaction_read_only = off")
        connection.commit()
        for statement in ("INSERT INTO text_messages VALUES (gen_random_uuid(), 'x')", "DELETE FROM text_messages"):
            with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                cursor.execute(statement)
            connection.rollback()
    connection.close()


def test_many_posts_at_once_are_all_answered_with_201(pipeline: Pipeline) -> None:
    def send(number: int) -> tuple[int, str]:
        answer = requests.post(
            f"{pipeline.text_api}/messages", data=json.dumps({"message": f"many {number}"}),
            headers={"Content-Type": "application/json"}, timeout=20,
        )  # fmt: skip
        return answer.status_code, answer.json().get("message", "")

    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(send, range(64)))
    assert answers == [(201, f"many {number}") for number in range(64)]
