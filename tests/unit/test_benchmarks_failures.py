"""What a benchmark tells where something has failed: never a figure."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import requests

from benchmarks import contestants, environments, texts, watch
from benchmarks.bench import installed
from benchmarks.beside import beside
from benchmarks.cases import freshness, keeping_up, search
from benchmarks.contestants import OURS
from benchmarks.report import Outcome
from benchmarks.texts import Text
from benchmarks.watch import Unfinished
from embedder.hashing import HashingEmbedder
from stack import StackError

QUERIES = [Text(str(number), "x") for number in range(20)]


@contextmanager
def search_api(status: int, body: bytes) -> Iterator[Any]:
    """A running contestant, as far as its search API goes, which answers all alike."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield SimpleNamespace(settings=SimpleNamespace(search_api_port=server.server_port, kafka_topic="texts"))
        server.shutdown()


def test_refused_searches_are_no_rate() -> None:
    with search_api(200, b'{"results": []}') as live:
        assert search.rate(live, QUERIES, 4) > 0
    with search_api(503, b'{"error": "busy"}') as live, pytest.raises(requests.HTTPError, match="503"):
        search.rate(live, QUERIES, 4)


class NoKafka:
    """A Pacer that sends nothing."""

    def __init__(self, *_: object) -> None:
        pass

    def run(self, _texts: object) -> None:
        pass

    def close(self) -> None:
        pass


def test_a_probe_that_no_search_finds_ends_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "Pacer", NoKafka)
    monkeypatch.setattr(freshness, "PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(freshness, "PROBE_EVERY_SECONDS", 0.01)
    waits: list[float] = []
    with search_api(503, b"{}") as live, pytest.raises(Unfinished, match="the last answer was 503"):
        freshness.probe(live, waits, threading.Event())
    assert not waits


def test_texts_do_not_come_in_where_their_sender_has_died(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dying(NoKafka):
        def run(self, _texts: object) -> None:
            raise OSError("Kafka has gone")

    monkeypatch.setattr(search, "Pacer", Dying)
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    live: Any = SimpleNamespace(settings=SimpleNamespace(kafka_topic="texts"))
    with (
        pytest.raises(Unfinished, match="the sender of texts failed: OSError: Kafka has gone"),
        search.ingesting(live, 5),
    ):
        pass


def test_rows_that_could_not_be_counted_are_not_none() -> None:
    def connect(_database: str) -> None:
        raise OSError("no connection")

    bench: Any = SimpleNamespace(servers=SimpleNamespace(connect=connect))
    live: Any = SimpleNamespace(settings=SimpleNamespace(database_name="x"))
    with pytest.raises(Unfinished, match="no connection"), keeping_up.counted(bench, live):
        pass


def test_work_beside_a_measurement_ends_with_it_and_does_not_hide_what_went_wrong_in_it() -> None:
    ended = threading.Event()

    def work(over: threading.Event) -> None:
        over.wait(20)
        ended.set()
        raise OSError("too late to matter")

    with pytest.raises(ZeroDivisionError), beside("it", work):
        _ = 1 / 0
    assert ended.is_set()


@pytest.mark.parametrize(("number", "refused"), [("0", True), ("NaN", True), (None, False)])
def test_vectors_of_nothing_do_not_pass_for_those_of_the_texts(
    monkeypatch: pytest.MonkeyPatch, number: str | None, refused: bool
) -> None:
    sent = list(texts.made_up(5))
    embedder = HashingEmbedder()
    own = [[number or value for value in vector] for vector in embedder.embed([each.text for each in sent]).tolist()]
    stored = [(each.id, f"[{','.join(map(str, vector))}]") for each, vector in zip(sent, own, strict=True)]
    monkeypatch.setattr(watch, "number", lambda *_: len(sent))
    monkeypatch.setattr(watch, "stored_checksum", lambda *_: watch.expected_checksum(sent))
    monkeypatch.setattr(watch, "id_type", lambda *_: "uuid")
    monkeypatch.setattr(watch, "ask", lambda *_: stored)
    connection: Any = None
    if refused:
        with pytest.raises(Unfinished, match="a cosine of only"):
            watch.verify(connection, OURS, sent, embedder)
    else:
        watch.verify(connection, OURS, sent, embedder)


def test_a_peer_that_cannot_be_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def python(name: str) -> str:
        if name == "pathway":
            raise StackError("no wheel for this Python")
        return "python"

    monkeypatch.setattr(environments, "python", python)
    ours, theirs, script = contestants.lean(), contestants.pathway(), contestants.script()
    outcome = Outcome("case", "title", {})
    assert installed(outcome, [ours, theirs, script]) == [ours, script]
    assert outcome.notes == ["without pathway, which could not be installed: no wheel for this Python"]
    with pytest.raises(Unfinished, match="no wheel"):
        installed(Outcome("case", "title", {}), [theirs])
