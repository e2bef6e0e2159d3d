"""What the APIs refuse, and how they say so: problem documents, before Kafka or the database is asked for anything."""

import json
from collections.abc import Iterator
from io import BytesIO

import psycopg2
import pytest
from flask import Request
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize
from psycopg2 import OperationalError, errorcodes
from psycopg2.errors import QueryCanceled
from sqlalchemy.exc import DataError, DBAPIError
from werkzeug.test import TestResponse

from api import incoming, messages
from api.app import create_app
from settings import Settings

# Nothing listens at these ports.
NOWHERE = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing", max_body_bytes=200_000)


@pytest.fixture(scope="module")
def text() -> Iterator[FlaskClient]:
    app = create_app("text", NOWHERE)
    yield app.test_client()
    app.extensions["parts"].close()


@pytest.fixture(scope="module")
def search() -> Iterator[FlaskClient]:
    app = create_app("search", NOWHERE)
    yield app.test_client()
    app.extensions["parts"].close()


def post(client: FlaskClient, body: bytes | object, path: str = "/messages") -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return client.post(path, data=data, content_type="application/json")


def assert_problem(answer: TestResponse, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.content_type == "application/problem+json"
    assert answer.json is not None
    assert set(answer.json) >= {"type", "title", "status", "detail"}
    assert answer.json["status"] == status


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "invalid-json"),
        (b"{", "invalid-json"),
        (b'{"message": "x", "metadata": {"a": NaN}}', "invalid-json"),
        (b'{"message": "x", "metadata": {"a": -Infinity}}', "invalid-json"),
        (b'{"message": "x", "a": ' + b"[" * 90_000 + b"]" * 90_000 + b"}", "invalid-json"),
        (b'\xef\xbb\xbf{"message": "x"}', "invalid-json"),
        (b'{"message": "\xe9"}', "invalid-unicode"),
        (b'{"message": "\\ud800"}', "invalid-unicode"),
        (b'{"message": "x", "metadata": {"\\udc00": 1}}', "invalid-unicode"),
        ({"message": "a\0b"}, "nul-character"),
        ({"message": "x", "metadata": {"a": ["\0"]}}, "nul-character"),
        ([], "not-an-object"),
        ("{}", "not-an-object"),
        (None, "not-an-object"),
        ({}, "missing-text"),
        ({"message": None}, "missing-text"),
        ({"text": "x"}, "missing-text"),
        ({"message": 5}, "invalid-text"),
        ({"message": " \u3000\n"}, "invalid-text"),
        ({"message": "x", "id": 5}, "invalid-id"),
        ({"message": "x", "id": ""}, "invalid-id"),
        ({"message": "x", "id": "a" * 256}, "invalid-id"),
        ({"message": "x", "metadata": []}, "invalid-metadata"),
    ],
)
def test_a_post_that_would_be_a_dead_letter_is_refused_with_its_reason(
    text: FlaskClient, body: object, reason: str
) -> None:
    answer = post(text, body)
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["reason"] == reason


def test_a_text_that_is_too_long_is_413_with_its_reason(text: FlaskClient) -> None:
    answer = post(text, {"message": "x" * 100_001})
    assert_problem(answer, 413)
    assert answer.json is not None
    assert answer.json["reason"] == "text-too-long"


def test_a_body_that_is_too_large_is_413(text: FlaskClient) -> None:
    assert_problem(post(text, {"message": "x" * 200_001}), 413)


@pytest.mark.parametrize("body", [b'{"message": "' + b"x" * 200_000 + b'"}', b'{"message": "x"}' + b" " * 200_000])
def test_a_chunked_body_that_is_too_large_is_413(text: FlaskClient, body: bytes) -> None:
    answer = text.post(
        "/messages",
        input_stream=BytesIO(body),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert_problem(answer, 413)


class Broken(BytesIO):
    """A body whose chunks are wrong, as gunicorn tells it."""

    def read(self, *_: object) -> bytes:
        raise InvalidChunkSize(b"zz")


class Stalled(BytesIO):
    """A body that stops coming, as gunicorn.conf.py has it told, after a wait."""

    waits = 0

    def read(self, *_: object) -> bytes:
        self.waits += 1
        raise BlockingIOError

    readinto = read  # type: ignore[assignment]


@pytest.mark.parametrize("headers", [{"Transfer-Encoding": "chunked"}, {"Content-Length": "100"}])
def test_a_body_that_stops_coming_is_408(text: FlaskClient, headers: dict[str, str]) -> None:
    body = Stalled(bytes(100))
    answer = text.post(
        "/messages",
        input_stream=body,
        content_type="application/json",
        headers=headers,
        environ_overrides={"wsgi.input_terminated": "Transfer-Encoding" in headers},
    )
    assert_problem(answer, 408)
    assert body.waits == 1, "the answer does not wait for the rest once more"


@pytest.mark.parametrize(("method", "path", "status"), [("POST", "/messages", 400), ("GET", "/openapi.json", 200)])
def test_a_body_whose_chunks_are_wrong_is_the_requests_fault(
    text: FlaskClient, method: str, path: str, status: int
) -> None:
    answer = text.open(
        path,
        method=method,
        input_stream=Broken(),
        content_type="application/json",
        headers={"Transfer-Encoding": "chunked"},
        environ_overrides={"wsgi.input_terminated": True},
    )
    assert answer.status_code == status
    if status == 400:
        assert_problem(answer, 400)


@pytest.mark.parametrize(("levels", "status"), [(798, 503), (799, 400)])
def test_metadata_may_be_nested_as_deeply_as_in_a_record(text: FlaskClient, levels: int, status: int) -> None:
    body = b'{"message": "x", "metadata": {"k": ' + b"[" * levels + b"]" * levels + b"}}"
    assert_problem(text.post("/messages", data=body, content_type="application/json"), status)
    batch = b'{"messages": [' + body + b"]}"
    assert_problem(text.post("/messages/batch", data=batch, content_type="application/json"), status)


def test_only_texts_too_long_in_a_batch_are_413(text: FlaskClient) -> None:
    long, bad = {"message": "x" * 100_001}, {"message": "x", "id": ""}
    answer = text.post("/messages/batch", json={"messages": [long]})
    assert_problem(answer, 413)
    assert_problem(text.post("/messages/batch", json={"messages": [long, bad]}), 400)


@pytest.mark.parametrize(("state", "status"), [("v=" + "s" * 498, 503), ("v=" + "s" * 499, 413)])
def test_what_kafka_would_refuse_with_its_trace_headers_keeps_a_whole_batch_back(
    text: FlaskClient, monkeypatch: pytest.MonkeyPatch, state: str, status: int
) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": state}
    value = b'{"id":"i","text":"x"}'
    monkeypatch.setattr(messages, "MAX_RECORD_BYTES", len(value) + len("i") + len("traceparenttracestate") + 55 + 500)
    body = {"messages": [{"message": "x", "id": "i"}]}
    assert_problem(text.post("/messages/batch", json=body, headers=headers), status)
    assert_problem(text.post("/messages/batch", json=body), 503)


@pytest.mark.parametrize(
    ("path", "query", "status"), [("/messages/\xff", "", 404), ("/\xc3(", "", 404), ("/messages", "q=%ff", 400)]
)
def test_an_address_that_is_not_utf_8_names_nothing(text: FlaskClient, path: str, query: str, status: int) -> None:
    answer = text.get("/", environ_overrides={"PATH_INFO": path, "QUERY_STRING": query})
    assert_problem(answer, status)
    assert "UTF-8" in answer.get_data(as_text=True)


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/json; charset=latin-1", "application/problem+json", "", None]
)
def test_another_content_type_is_415(text: FlaskClient, content_type: str | None) -> None:
    assert_problem(text.post("/messages", data=b'{"message": "x"}', content_type=content_type), 415)


def test_a_compressed_body_is_415(text: FlaskClient) -> None:
    answer = text.post("/messages", data=b"x", content_type="application/json", headers={"Content-Encoding": "gzip"})
    assert_problem(answer, 415)


def test_a_batch_names_each_bad_message(text: FlaskClient) -> None:
    answer = post(
        text, {"messages": [{"message": "x"}, {"message": ""}, 5, {"message": "x", "id": 1}]}, "/messages/batch"
    )
    assert_problem(answer, 400)
    assert answer.json is not None
    assert [(each["index"], each["reason"]) for each in answer.json["errors"]] == [
        (1, "invalid-text"),
        (2, "not-an-object"),
        (3, "invalid-id"),
    ]
    assert answer.json["reason"] == "invalid-text"
    assert "message 1" in answer.json["detail"]


@pytest.mark.parametrize("messages", [[], [{"message": "x"}] * 1001, None, {"message": "x"}])
def test_a_batch_has_1_to_1000_messages(text: FlaskClient, messages: object) -> None:
    assert_problem(post(text, {"messages": messages}, "/messages/batch"), 400)


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "abc", "1e3", "1.0", "01", "+5", " 5", "", "1_0", "١٠", "9" * 30])
def test_a_limit_is_1_to_1000_in_plain_digits(text: FlaskClient, limit: str) -> None:
    answer = text.get("/messages", query_string={"limit": limit})
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["detail"].startswith("limit: ")


@pytest.mark.parametrize(
    "query", ["limit=5&limit=5", "cursor=abc", "cursor=", "cursor=" + "0" * 47, "cursor=%00", "q=%00", "q=" + "x" * 501]
)
def test_other_bad_queries_are_400(text: FlaskClient, query: str) -> None:
    assert_problem(text.get(f"/messages?{query}"), 400)


@pytest.mark.parametrize(
    "change",
    [
        {"query": ""},
        {"query": "x" * 10_001},
        {"query": 5},
        {"query": "a\0"},
        {"query": None},
        {"limit": 0},
        {"limit": 101},
        {"limit": "5"},
        {"limit": 5.5},
        {"limit": True},
        {"limit": None},
        {"mode": "Semantic"},
        {"mode": None},
        {"filter": []},
        {"filter": {"a": "\0"}},
        {"filter": {"a": "\ud800"}},
        {"min_score": "0.3"},
        {"min_score": True},
        {"since": "yesterday"},
        {"since": "infinity"},
        {"since": "2025-02-30"},
        {"since": "٢٠٢٥-01-01"},
        {"since": 5},
        {"until": ""},
        {"until": "2025-01-01T25:00:00Z"},
        {"until": "2025-01-01T12:00:00+24:00"},
        {"until": "2025-01-01T12:00:00+05:60"},
    ],
)
def test_a_search_that_is_wrong_is_400_and_says_where(search: FlaskClient, change: dict[str, object]) -> None:
    answer = post(search, {"query": "x"} | change, "/embeddings/search")
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["detail"].startswith(f"{next(iter(change))}: ")
    assert "timedelta" not in answer.json["detail"]


@pytest.mark.parametrize(
    ("value", "said"), [(None, "null"), (True, "true"), (0, "0"), ("5", "'5'"), ("x" * 60, f"'{'x' * 50}'")]
)
def test_what_is_wrong_is_told_as_it_was_sent(search: FlaskClient, value: object, said: str) -> None:
    answer = post(search, {"query": "x", "limit": value}, "/embeddings/search")
    assert answer.json is not None
    assert answer.json["detail"].endswith(f", found {said}")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("/messages?q=%00", "q: must be without the character NUL"),
        ("/messages?cursor=abc", "cursor: must be the `next` of the page before"),
        ("/trace?partition=0&offset=0&topic=a%20b", "topic: must be the name of a topic"),
    ],
)
def test_what_is_wrong_is_told_in_words_and_not_as_a_pattern(text: FlaskClient, query: str, said: str) -> None:
    answer = text.get(query)
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["detail"].startswith(f"{said}, found ")


@pytest.mark.parametrize("number", ["1.5", "1.50", "-0.0001", "1E+400", "1E-7", "1" * 40 + ".5"])
@pytest.mark.parametrize("member", ["query", "limit", "mode", "filter", "since"])
def test_a_number_that_is_wrong_is_told_as_it_was_sent(search: FlaskClient, member: str, number: str) -> None:
    sent = {"query": '"x"', member: number}
    body = "{" + ", ".join(f'"{name}": {value}' for name, value in sent.items()) + "}"
    answer = post(search, body.encode(), "/embeddings/search")
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["detail"].endswith(f", found {number}")


@pytest.mark.parametrize("given", [{}, [], 1.5])
def test_what_is_wrong_is_told_in_the_words_of_json(text: FlaskClient, given: object) -> None:
    answer = post(text, {"messages": given}, "/messages/batch")
    assert_problem(answer, 400)
    assert answer.json is not None
    assert "list" not in answer.json["detail"]
    assert "array" in answer.json["detail"]


@pytest.mark.parametrize("limit", [b"1E+1000000", b"-1E+1000000", b"1E-1000000", b"1E+999999999999999999", b"1e18"])
def test_a_limit_beyond_all_numbers_is_only_wrong(search: FlaskClient, limit: bytes) -> None:
    answer = post(search, b'{"query": "x", "limit": ' + limit + b"}", "/embeddings/search")
    assert_problem(answer, 400)
    assert answer.json is not None
    assert answer.json["detail"].startswith("limit: ")


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed"),
    [
        ("GET", "/nothing", 404, None),
        ("GET", "/messages/", 404, None),
        ("PUT", "/messages", 405, {"GET", "HEAD", "OPTIONS", "POST"}),
        ("POST", "/messages/some-id", 405, {"DELETE", "GET", "HEAD", "OPTIONS"}),
        ("DELETE", "/stats", 405, {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/messages/" + "a" * 256, 503, None),  # the database is asked first, as it is for any id
    ],
)
def test_unknown_paths_and_methods(
    text: FlaskClient, method: str, path: str, status: int, allowed: set[str] | None
) -> None:
    answer = text.open(path, method=method)
    assert_problem(answer, status)
    if allowed is not None:
        assert set(answer.headers["Allow"].split(", ")) == allowed


def test_a_dead_database_is_503_with_retry_after(text: FlaskClient, search: FlaskClient) -> None:
    for client, path in [
        (text, "/messages"),
        (text, "/messages/a"),
        (text, "/stats"),
        (search, "/embeddings/a/similar"),
    ]:
        answer = client.get(path)
        assert_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
    answer = search.get("/status")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["status"] == "unavailable"
    page = search.get("/?q=cat")  # the console comes all the same, and says what is away
    assert page.status_code == 200
    assert "PostgreSQL" in page.text


class Canceled(QueryCanceled):
    pgcode = errorcodes.QUERY_CANCELED


@pytest.mark.parametrize(
    "error",
    [
        DBAPIError("SELECT", None, OperationalError("gone")),
        DBAPIError("SELECT", None, Canceled("took too long")),
        DataError("SELECT", None, psycopg2.DataError("out of range")),
        OperationalError("gone"),
        ValueError("a bug"),
    ],
    ids=["outage", "too long", "bad value", "lost connection", "bug"],
)
def test_the_log_names_the_route_and_nobody_s_id(caplog: pytest.LogCaptureFixture, error: Exception) -> None:
    app = create_app("text", NOWHERE)
    for path, told in (("/messages/alice@example.org", "GET /messages/{id}"), ("/alice@example.org", "GET unknown")):
        caplog.clear()
        with app.test_request_context(path):
            app.handle_user_exception(error)
        (line,) = caplog.messages
        assert line.startswith(told)
        assert "alice" not in line
    app.extensions["parts"].close()


def test_the_log_names_no_id_where_an_answer_cannot_be_finished(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as by a client that resets the connection while the rest of its body is awaited."""

    def reset(_request: Request) -> None:
        raise ConnectionResetError

    monkeypatch.setattr(incoming, "drain", reset)
    app = create_app("text", NOWHERE)
    app.test_client().options("/messages/alice@example.org")
    assert "OPTIONS /messages/{id} failed" in caplog.messages
    assert not [line for line in caplog.messages if "alice" in line]
    app.extensions["parts"].close()


def test_a_dead_kafka_is_503_with_the_id_to_post_again_with(text: FlaskClient) -> None:
    for given in (None, "note-1", "AAAAAAAA-BBBB-4CCC-8DDD-EEEEEEEEEEEE"):
        answer = post(text, {"message": "x", "id": given})
        assert_problem(answer, 503)
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json is not None
        assert answer.json["id"] == given or given is None
        assert 1 <= len(answer.json["id"]) <= 255
    answer = post(text, {"messages": [{"message": "x", "id": "note-1"}, {"message": "y"}]}, "/messages/batch")
    assert_problem(answer, 503)
    assert answer.json is not None
    assert answer.json["ids"][0] == "note-1"
    assert len(answer.json["ids"]) == 2


def test_health_names_what_is_away(text: FlaskClient, search: FlaskClient) -> None:
    answer = text.get("/health")
    assert answer.status_code == 503
    assert answer.json is not None
    assert answer.json["status"] == "unavailable"
    assert list(answer.json["checks"]) == ["database", "kafka", "broker"]
    assert "ok" not in answer.json["checks"].values()
    assert list((search.get("/health").json or {})["checks"]) == ["database", "kafka", "broker", "model"]


def test_a_bug_is_500_without_a_trace(caplog: pytest.LogCaptureFixture) -> None:
    app = create_app("text", NOWHERE)

    @app.get("/bug")
    def bug() -> str:
        raise KeyError("a secret")

    answer = app.test_client().get("/bug")
    assert_problem(answer, 500)
    assert "secret" not in answer.text
    assert "a secret" in caplog.text


def test_a_lost_connection_that_comes_as_it_is_is_503() -> None:
    """A connection may break on its way back to the pool, and SQLAlchemy does not wrap that error."""
    app = create_app("text", NOWHERE)

    @app.get("/lost")
    def lost() -> str:
        raise OperationalError("PostgreSQL does not answer")

    assert_problem(app.test_client().get("/lost"), 503)


def test_every_answer_has_its_guards(text: FlaskClient) -> None:
    for path in ("/nothing", "/metrics", "/docs", "/openapi.json"):
        headers = text.get(path).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_metrics_count_routes_not_paths(text: FlaskClient) -> None:
    text.get("/messages/one")
    text.get("/messages/two")
    text.open("/messages/two", method="BREW")
    exposed = text.get("/metrics").text
    assert 'http_requests_total{method="GET",route="/messages/{id}",status="503"}' in exposed
    assert 'method="other"' in exposed
    assert "two" not in exposed
