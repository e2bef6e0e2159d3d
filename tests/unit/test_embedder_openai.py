"""The openai provider against a real HTTP server: which failure is an outage, which is the text's, and what leaks."""

import contextlib
import http.client
import io
import json
import logging
import select
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder import EmbedderUnavailable, ModelError, UnembeddableText, http_endpoint, load_provider, openai
from settings import InvalidSetting, Settings
from tests.embedder_parts import HASHING, KEY, Answer, EmbeddingServer, embedding_server
from tests.parts import missing


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    with embedding_server() as running:
        yield running


def test_the_dimensions_come_from_the_endpoint(server: EmbeddingServer) -> None:
    server.dimensions = 96
    assert load_provider(server.settings()).dimensions == 96


def test_dimensions_that_are_set_are_asked_for_and_part_of_the_name(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings(openai_dimensions="64"))
    assert (embedder.model, embedder.dimensions) == ("text-embedding-3-small@64", 64)
    assert embedder.embed(["hello"]).shape == (1, 64)


def test_dimensions_that_are_set_but_not_given_are_an_error_at_start(server: EmbeddingServer) -> None:
    server.answers = [Answer(200, {}, '{"data": [{"index": 0, "embedding": [1.0, 2.0]}]}')]
    with pytest.raises(ModelError, match="2 dimensions where 64 are expected"):
        load_provider(server.settings(openai_dimensions="64"))


def test_other_dimensions_than_at_start_are_an_error(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    server.dimensions = 96
    with pytest.raises(ModelError, match=r"96 dimensions where 384 are expected.*reembed"):
        embedder.embed(["hello"])


@pytest.mark.parametrize("plain_numbers", [False, True], ids=["base64", "numbers"])
def test_answers_are_put_in_order_and_made_unit_length(server: EmbeddingServer, plain_numbers: bool) -> None:
    server.plain_numbers = plain_numbers
    texts = [f"word{number}" for number in range(10)]
    np.testing.assert_allclose(load_provider(server.settings()).embed(texts), HASHING.embed(texts), atol=1e-6)


def test_an_endpoint_that_refuses_base64_is_asked_without(server: EmbeddingServer) -> None:
    server.refuses_base64 = server.plain_numbers = True
    embedder = load_provider(server.settings())
    np.testing.assert_allclose(embedder.embed(["hello"]), HASHING.embed(["hello"]), atol=1e-6)
    assert [request.get("encoding_format") for request in server.requests] == ["base64", None, None]


def test_texts_are_sent_in_batches(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings(openai_batch_max=40))
    assert embedder.batch_max == 40
    embedder.embed([f"text {number}" for number in range(100)])
    assert [len(request["input"]) for request in server.requests[1:]] == [40, 40, 20]


def test_a_batch_too_large_for_the_server_is_halved(server: EmbeddingServer) -> None:
    server.batch_max = 32
    texts = [f"text {number}" for number in range(100)]
    np.testing.assert_allclose(load_provider(server.settings()).embed(texts), HASHING.embed(texts), atol=1e-6)


@pytest.mark.parametrize("place", [0, 3, 77, 99])
def test_the_one_text_that_is_refused_is_found(server: EmbeddingServer, place: int) -> None:
    embedder = load_provider(server.settings(openai_batch_max=64))
    texts = [f"text {number}" for number in range(100)]
    texts[place] = "REFUSED"
    with pytest.raises(UnembeddableText, match="an input is invalid") as caught:
        embedder.embed(texts)
    assert caught.value.index == place
    assert len(server.requests) < 25


def test_an_endpoint_that_refuses_every_text_is_no_texts_fault(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(400)] * 50
    with pytest.raises(EmbedderUnavailable, match="no vector for any text"):
        embedder.embed(["one", "two"])


def test_an_endpoint_that_refuses_the_first_question_is_an_error_at_start(server: EmbeddingServer) -> None:
    server.answers = [Answer(400, {}, '{"error": {"message": "no such model"}}')] * 2
    with pytest.raises(ModelError, match="no such model"):
        load_provider(server.settings())


def test_a_blank_passage_does_not_fail(server: EmbeddingServer) -> None:
    assert load_provider(server.settings()).embed(["", " \n", "text"]).shape == (3, 384)


@pytest.mark.parametrize("status", [408, 409, 429, 502, 503, 504, 529, 301])
def test_an_outage_is_an_outage(server: EmbeddingServer, status: int) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(status)]
    with pytest.raises(EmbedderUnavailable, match=f"HTTP {status}") as caught:
        embedder.embed(["hello"])
    assert caught.value.retry_after is None
    assert len(server.requests) == 2
    assert embedder.embed(["hello"]).shape == (1, 384)


@pytest.mark.parametrize("count", [1, 100])
def test_500_for_everything_is_an_outage_which_one_more_question_tells(server: EmbeddingServer, count: int) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(500), Answer(500, {"Retry-After": "7"})]
    with pytest.raises(EmbedderUnavailable, match="HTTP 500") as caught:
        embedder.embed(["hello"] * count)
    assert caught.value.retry_after == 7
    assert len(server.requests) == 3
    server.answers = [Answer(500), Answer(503)]
    with pytest.raises(EmbedderUnavailable, match="HTTP 503"):
        embedder.embed(["hello"] * count)
    server.answers = [Answer(500)]
    with pytest.raises(EmbedderUnavailable, match="HTTP 500"):
        load_provider(server.settings())


@pytest.mark.parametrize("place", [0, 77, 99])
def test_the_one_text_that_is_answered_by_500_is_found(
    server: EmbeddingServer, place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "PAUSE_SECONDS", 0.0)
    embedder = load_provider(server.settings())
    texts = [f"text {number}" for number in range(100)]
    server.fails_over = {texts[place]}
    with pytest.raises(UnembeddableText, match="unsupported value: NaN") as caught:
        embedder.embed(texts)
    assert caught.value.index == place
    assert len(server.requests) < 30


def test_a_question_too_large_for_the_server_is_halved_where_it_says_500(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    texts = [f"text {number}" for number in range(10)]
    server.answers = [Answer(500)]
    np.testing.assert_allclose(embedder.embed(texts), HASHING.embed(texts), atol=1e-6)
    assert [len(request["input"]) for request in server.requests[1:]] == [10, 1, 5, 5]


GOOD = Answer(200, {}, f'{{"data": [{{"index": 0, "embedding": [{", ".join(["1.0"] * 384)}]}}]}}')


@pytest.mark.parametrize(
    "answers",
    [
        [Answer(500)],
        [Answer(500), GOOD, Answer(500)],  # as of two servers that take turns
        [Answer(500), GOOD, Answer(400)],
    ],
    ids=["once", "every other", "and 400"],
)
def test_an_endpoint_that_answers_500_now_and_then_costs_no_text_its_vector(
    server: EmbeddingServer, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "PAUSE_SECONDS", 0.0)
    embedder = load_provider(server.settings())
    server.answers = answers
    np.testing.assert_allclose(embedder.embed(["hello"]), HASHING.embed(["hello"]), atol=1e-6)
    assert server.answers == []


def test_an_outage_that_begins_while_a_text_is_looked_for_is_no_texts_fault(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openai, "PAUSE_SECONDS", 0.0)
    embedder = load_provider(server.settings())
    server.answers = [Answer(500), GOOD, *[Answer(500)] * 3]
    with pytest.raises(EmbedderUnavailable, match="HTTP 500"):
        embedder.embed(["hello"])
    assert server.answers == []


def test_no_cache_can_answer_whether_others_are_taken(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    for _ in range(2):
        with pytest.raises(UnembeddableText):
            embedder.embed(["REFUSED"])
    probes = [request["input"][0] for request in server.requests if request["input"] != ["REFUSED"]]
    assert len(set(probes)) == 3


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        ("a date in a minute", 30, 60),
        ("soon", None, None),
        ("-1", None, None),
        (f"Mon, 01 Jan 2030 00:00:00 +{'9' * 30}", None, None),
    ],
)
def test_retry_after_is_passed_on(server: EmbeddingServer, value: str, least: float | None, most: float | None) -> None:
    embedder = load_provider(server.settings())
    if value == "a date in a minute":  # a minute from now, not from when the tests were collected
        value = formatdate(time.time() + 60, usegmt=True)
    server.answers = [Answer(429, {"Retry-After": value})]
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(["hello"])
    after = caught.value.retry_after
    if least is None or most is None:
        assert after is None
    else:
        assert after is not None
        assert least <= after <= most


@pytest.mark.parametrize(
    "body",
    ["", "not JSON", "[]", "{}", "null", '{"data": []}', '{"data": [{"index": 0}]}',
     '{"data": [{"index": 1, "embedding": [1.0]}]}',
     '{"data": [{"index": 0, "embedding": "!!"}]}', '{"data": [{"index": 0, "embedding": []}]}',
     '{"data": [{"index": 0, "embedding": ["x"]}]}', '{"data": [{"index": 0, "embedding": [[1.0]]}]}',
     '{"data": [{"index": -1, "embedding": [1.0]}]}', '{"data": [{"index": 0, "embedding": [%s]}]}' % ("9" * 400),
     '{"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}]}', "[" * 100_000],
    ids=lambda body: body[:60],
)  # fmt: skip
def test_an_answer_without_embeddings_is_an_outage(server: EmbeddingServer, body: str) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(200, {}, body)]
    with pytest.raises(EmbedderUnavailable, match="no embeddings"):
        embedder.embed(["hello"])


NO_VECTORS = ["null", *(f"[{', '.join([number] * 384)}]" for number in ("0.0", "NaN", "Infinity", "null"))]


@pytest.mark.parametrize("vector", NO_VECTORS, ids=lambda vector: vector[:5])
def test_an_endpoint_that_has_no_vector_for_any_text_is_no_texts_fault(server: EmbeddingServer, vector: str) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(200, {}, f'{{"data": [{{"index": 0, "embedding": {vector}}}]}}')] * 2
    with pytest.raises(EmbedderUnavailable, match="no vector for any text"):
        embedder.embed(["hello"])
    server.answers = [Answer(200, {}, f'{{"data": [{{"index": 0, "embedding": {vector}}}]}}')] * 2
    with pytest.raises(ModelError, match="does not embed"):
        load_provider(server.settings())


@pytest.mark.parametrize("vector", NO_VECTORS, ids=lambda vector: vector[:5])
def test_the_one_text_without_a_vector_is_found(server: EmbeddingServer, vector: str) -> None:
    embedder = load_provider(server.settings())
    server.spoilt = {"text 3": vector}
    with pytest.raises(UnembeddableText, match="no vector for the text") as caught:
        embedder.embed([f"text {number}" for number in range(10)])
    assert caught.value.index == 3
    assert embedder.embed(["text 4"]).shape == (1, 384)


def test_nobody_there_is_an_outage(server: EmbeddingServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(EmbedderUnavailable, match="cannot be reached"):
        load_provider(server.settings(openai_base_url=f"http://127.0.0.1:{port}/v1"))


def test_an_answer_that_does_not_come_is_an_outage(server: EmbeddingServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        began = time.monotonic()
        with pytest.raises(EmbedderUnavailable, match="timed out"):
            load_provider(server.settings(openai_base_url=url, openai_timeout_seconds=0.2))
        assert time.monotonic() - began < 5


def drips(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(200):
        connection.sendall(b" ")
        time.sleep(0.05)


def without_end(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b" " * 2**16)


def of_length(length: int, connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n{}" % length)


def in_odd_chunks(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n{}\r\n")


@pytest.mark.parametrize(
    ("answers", "seconds", "said"),
    [
        (drips, 0.5, "timed out"),
        (without_end, 30.0, "an answer of more than 1 MB"),
        (partial(of_length, 2**62), 0.5, "cannot be reached"),
        (partial(of_length, 10**30), 0.5, "cannot be reached"),
        (in_odd_chunks, 0.5, "cannot be reached"),
    ],
    ids=["drips", "without an end", "very long", "too long for a number", "odd chunks"],
)
def test_an_answer_that_is_none_is_an_outage(
    answers: Callable[[socket.socket], None], seconds: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_endpoint, "MOST_BYTES", 2**20)

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, contextlib.suppress(OSError):
            while b"probe" not in connection.recv(2**16):
                pass
            answers(connection)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        chosen = Settings(embedding_provider="openai", openai_base_url=url, openai_timeout_seconds=seconds)
        began = time.monotonic()
        with pytest.raises(EmbedderUnavailable, match=said):
            load_provider(chosen)
        assert time.monotonic() - began < 5


def test_a_piece_of_an_answer_is_waited_for_no_longer_than_is_left_for_all() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30.0)
        answer = http_endpoint.Until(ours.makefile("rb").detach(), ours)
        answer.until -= 20.0
        theirs.sendall(b"{")
        assert answer.readinto(bytearray(10)) == 1
        assert 0 < (ours.gettimeout() or 0.0) <= 10.0


def test_what_is_sent_before_an_answer_is_not_taken_for_it() -> None:
    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rb") as reader:
            while line := reader.readline():
                if line.startswith(b"Content-Length: "):
                    length = int(line.split()[1])
                if line == b"\r\n":
                    question = reader.read(length)
                    connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </>\r\n\r\n")
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (length, question))

    with endpoint_of(serve) as endpoint:
        for number in range(3):
            assert json.loads(endpoint.post({"input": number})) == {"input": number}


def test_an_answer_that_nobody_has_asked_for_is_not_taken_for_the_next() -> None:
    surplus = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nsurplus"
    answered = threading.Event()

    def serve(listening: socket.socket) -> None:
        with listening.accept()[0] as first:
            answer(first, b"0")
            answered.wait(10)
            first.sendall(surplus)
            with contextlib.suppress(TimeoutError), listening.accept()[0] as second:
                answer(second, b"1")

    with endpoint_of(serve) as endpoint:
        assert endpoint.post({}) == b"0"
        answered.set()
        select.select([endpoint._idle[0].sock], [], [], 10)
        assert endpoint.post({}) == b"1"


def test_a_second_answer_that_came_with_the_first_over_tls_is_not_taken_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A TLS record is decrypted whole, and what of it no one has read yet is not in the socket any more."""
    if shutil.which("openssl") is None:
        missing("no openssl to make a certificate")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    more = ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make.split(), *more], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    # As long as what the client reads at a time, so that the second one begins where it has stopped reading.
    padding = io.DEFAULT_BUFFER_SIZE - len(answer_of(b"0" * 1_000)) - len("X: \r\n")

    def serve(listening: socket.socket) -> None:
        with contextlib.suppress(TimeoutError, OSError):
            for number in range(2):
                with context.wrap_socket(listening.accept()[0], server_side=True) as connection:
                    read_request(connection)
                    said = b"%d" % number * 1_000
                    connection.sendall(answer_of(said, b"X: " + b"x" * padding + b"\r\n") + answer_of(b"surplus"))
                    connection.recv(1)

    with endpoint_of(serve, "https://localhost") as endpoint:
        assert [endpoint.post({}), endpoint.post({})] == [b"0" * 1_000, b"1" * 1_000]


@contextlib.contextmanager
def endpoint_of(
    serve: Callable[[socket.socket], None], where: str = "http://127.0.0.1"
) -> Iterator[http_endpoint.Endpoint]:
    """The client of what `serve` does with the socket that it gets, which listens at this machine's own address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        serving = threading.Thread(target=serve, args=(listening,))
        serving.start()
        endpoint = http_endpoint.Endpoint(f"{where}:{listening.getsockname()[1]}", "embeddings", "", 10.0)
        try:
            yield endpoint
        finally:
            http_endpoint.close_all(endpoint._idle)
            serving.join(15)


def answer(connection: socket.socket, said: bytes) -> None:
    """Answers the next request."""
    read_request(connection)
    connection.sendall(answer_of(said))


def read_request(connection: socket.socket) -> None:
    with connection.makefile("rb") as reader:
        reader.readline()
        reader.read(int(http.client.parse_headers(reader)["Content-Length"]))


def answer_of(said: bytes, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(said), more, said)


def test_connections_are_kept(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    for _ in range(10):
        embedder.embed(["hello"])
    assert server.connections == 1


def test_a_connection_that_the_server_closes_is_opened_again(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    server.close_after_answer = True
    for _ in range(5):
        assert embedder.embed(["hello"]).shape == (1, 384)


@pytest.mark.parametrize("kind", [ssl.SSLEOFError, ssl.SSLZeroReturnError])
def test_a_connection_with_tls_that_the_server_closes_is_opened_again(
    server: EmbeddingServer, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    embedder = load_provider(server.settings())
    request = http.client.HTTPConnection.request

    def once(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(http.client.HTTPConnection, "request", request)
        raise kind

    monkeypatch.setattr(http.client.HTTPConnection, "request", once)
    assert embedder.embed(["hello"]).shape == (1, 384)


def test_threads_do_not_wait_for_each_other(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    together = threading.Barrier(4, timeout=30)
    original = HASHING.embed(["hello"])
    ended: list[bool] = []

    def embed() -> None:
        together.wait()
        ended.append(all(np.allclose(embedder.embed(["hello"]), original, atol=1e-6) for _ in range(20)))

    threads = [threading.Thread(target=embed) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert ended == [True] * 4
    assert server.connections <= 5


@pytest.mark.parametrize(("status", "what"), [(401, "OPENAI_API_KEY"), (403, "OPENAI_API_KEY"), (404, "OPENAI_MODEL")])
def test_what_is_set_wrong_is_named(server: EmbeddingServer, status: int, what: str) -> None:
    server.answers = [Answer(status, {}, f'{{"error": {{"message": "{KEY} is wrong"}}}}')]
    with pytest.raises(EmbedderUnavailable, match=what):
        load_provider(server.settings())


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
def test_the_key_appears_nowhere(server: EmbeddingServer, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    settings = server.settings()
    embedder = load_provider(settings)
    server.answers = [Answer(status, {}, f"the key {KEY} is not liked")] * 3
    with pytest.raises((EmbedderUnavailable, UnembeddableText)) as caught:
        embedder.embed(["hello"])
    seen = [caught.value, caught.value.__cause__, caught.value.__context__, settings, embedder, vars(embedder)]
    assert KEY not in f"{seen!r} {seen!s} {caught.value} {caplog.text}"


@pytest.mark.parametrize(
    "body",
    [
        f"Bearer {KEY} is not liked",
        f'{{"error": {{"message": "Bearer {KEY} is not liked"}}}}',
        f'{{"data": [{{"index": 0, "embedding": ["Bearer {KEY} is not liked{" and more" * 100}"]}}]}}',
    ],
    ids=["no JSON", "an error", "no numbers"],
)
def test_an_answer_that_is_none_is_quoted_in_short_and_without_the_key(server: EmbeddingServer, body: str) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(200, {}, body)]
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed(["hello"])
    assert "Bearer *** is not liked" in caught.value.said
    assert KEY not in f"{caught.value} {caught.value.said}"
    assert len(caught.value.said) < 600


TEXT = "a text of which no log may know"


@pytest.mark.parametrize("status", [200, 400, 413, 422, 429, 500, 503])
def test_a_provider_that_quotes_a_text_does_not_bring_it_into_a_log(server: EmbeddingServer, status: int) -> None:
    embedder = load_provider(server.settings())
    quoting = Answer(status, {}, json.dumps({"error": {"message": f"wrong input: {TEXT}"}}))
    refusing = Answer(status, {}, json.dumps({"error": {"message": "this account may nothing"}}))
    server.answers = [quoting, refusing]
    with pytest.raises(EmbedderUnavailable) as caught:
        embedder.embed([TEXT])
    assert TEXT not in str(caught.value)
    assert str(status) in str(caught.value)
    ends_at_once = status in (200, 429, 503)
    assert (TEXT in caught.value.said) == ends_at_once
    assert ("this account may nothing" in str(caught.value)) != ends_at_once, "what is said of a text of ours is told"


def test_what_a_provider_says_of_a_text_that_fails_is_its_reason(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings())
    server.answers = [Answer(422, {}, json.dumps({"error": {"message": f"wrong input: {TEXT}"}}))]
    with pytest.raises(UnembeddableText, match=f"HTTP 422: wrong input: {TEXT}"):
        embedder.embed([TEXT])


def test_a_first_line_that_is_none_is_quoted_without_the_key(server: EmbeddingServer) -> None:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            while b"probe" not in connection.recv(2**16):
                pass
            connection.sendall(f"{KEY} is not liked\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        with pytest.raises(EmbedderUnavailable, match=r"\*\*\* is not liked"):
            load_provider(server.settings(openai_base_url=url))


def test_without_a_key_none_is_sent(server: EmbeddingServer) -> None:
    with pytest.raises(EmbedderUnavailable, match="401"):
        load_provider(server.settings(openai_api_key=""))


@pytest.mark.parametrize(
    "changes",
    [
        {"openai_base_url": "localhost:8080"},
        {"openai_base_url": "ftp://example.com/v1"},
        {"openai_base_url": "http://"},
        {"openai_base_url": "http://host:port/v1"},
        {"openai_base_url": "http://user:password@host/v1"},
        {"openai_base_url": "http://a..b/v1"},
        {"openai_base_url": "http://host/vé"},
        {"openai_api_key": "a\nb"},
        {"openai_api_key": "schlüssel"},
        {"openai_dimensions": "many"},
        {"openai_dimensions": "0"},
        {"openai_dimensions": "-3"},
    ],
)
def test_settings_that_cannot_be_are_named(changes: dict[str, str]) -> None:
    (name,) = changes
    with pytest.raises(InvalidSetting, match=name.upper()) as caught:
        load_provider(Settings(embedding_provider="openai", **changes))  # type: ignore[arg-type]
    assert "password" not in str(caught.value)
    assert "schlüssel" not in str(caught.value)


def test_a_slash_at_the_end_of_the_address_does_not_matter(server: EmbeddingServer) -> None:
    assert load_provider(server.settings(openai_base_url=f"{server.url}/")).dimensions == 384


def test_passages_are_counted_in_characters(server: EmbeddingServer) -> None:
    embedder = load_provider(server.settings(openai_passage_chars=100))
    spans = embedder.passages("A sentence of some words. " * 50)
    assert all(end - start <= 100 for start, end in spans)
