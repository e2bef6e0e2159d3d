"""Traces: what a collector gets of a record's way, what a part does without the packages, and that all is off without
an endpoint."""

import json
import logging
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from sqlalchemy import Engine, text

from settings import ROOT, Settings
from tests.parts import Running, eventually, missing

try:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
except ImportError:
    missing("the packages of requirements-otel.txt are not installed")

from telemetry import spans

SECRET = "a text of which no log may know"
PARTS = ("bridge", "persist-worker", "embed-worker", "text-api")


class Collector:
    """Takes OTLP over HTTP, as a real collector does, and keeps the spans."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.status = 200
        self.odd_line = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector.take(body)
                self.send_response(collector.status)
                self.flush_headers()
                self.wfile.write(collector.odd_line)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, body: bytes) -> None:
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = next(
                each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
            )
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found = {
                        "service": service,
                        "name": span.name,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                    }
                    attributes = {each.key: each.value.int_value or each.value.string_value for each in span.attributes}
                    links = {(link.trace_id.hex(), link.span_id.hex()) for link in span.links}
                    self.spans.append({**found, **attributes, "parent": span.parent_span_id.hex(), "links": links})

    def of(self, trace: str) -> dict[str, dict[str, Any]]:
        return {span["name"]: span for span in self.spans if span["trace"] == trace}


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def traced(
    collector: Collector, start: Callable[..., Running], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Running]]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    return lambda *names, **more: [start(name, otel_exporter_otlp_endpoint=collector.url, **more) for name in names]


def parent() -> tuple[str, str, str]:
    trace, span = uuid.uuid4().hex, uuid.uuid4().hex[:16]
    return trace, span, f"00-{trace}-{span}-01"


def test_a_traced_hand_over_tells_whether_it_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bridge's leases grow, and its log says "sent again", by that answer."""

    class Task:
        pass

    monkeypatch.setattr(spans, "start_tracer", lambda *_: None)
    answers = [True, False]
    hand_overs = SimpleNamespace(begin=None, publish=lambda _task: answers.pop(0))
    spans.watch_bridge(Settings(), hand_overs)
    task = Task()
    assert [hand_overs.publish(task), hand_overs.publish(task)] == [True, False]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_post_is_one_trace_from_the_request_to_the_vectors(
    settings: Settings, collector: Collector, traced: Callable[..., list[Running]], workers: int
) -> None:
    traced(*PARTS, persist_workers=workers, embed_workers=workers)
    trace, span, traceparent = parent()
    answer = requests.post(
        f"http://127.0.0.1:{settings.text_api_port}/messages",
        json={"message": SECRET, "id": "mine"},
        headers={"traceparent": traceparent},
        timeout=20,
    )
    assert answer.status_code == 201, answer.text

    def whole() -> bool:
        found = collector.of(trace)
        handed = f"{settings.kafka_topic} hand over"
        assert set(found) == {"POST /messages", handed, "persist_text", "embed_text"}
        ways = [found[name]["parent"] for name in ("POST /messages", handed, "persist_text", "embed_text")]
        return ways == [span, *(found[name]["id"] for name in ("POST /messages", handed, "persist_text"))]

    eventually(whole, 20)
    found = collector.of(trace)
    assert [each["service"] for each in found.values() if each["name"] == "POST /messages"] == ["text-api"]
    assert found["POST /messages"]["http.response.status_code"] == 201
    assert not [body for body in collector.bodies if SECRET.encode() in body or b"mine" in body]
    (record,) = log_of(settings)
    (header,) = [value.decode() for name, value in record.headers if name == "traceparent"]
    assert header == f"00-{trace}-{found['POST /messages']['id']}-01"


def log_of(settings: Settings) -> list[Any]:
    consumer = KafkaConsumer(**settings.kafka_client(), auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TopicPartition(settings.kafka_topic, number) for number in range(settings.kafka_topic_partitions)])
    try:
        return eventually(lambda: [each for batch in consumer.poll(500).values() for each in batch])
    finally:
        consumer.close()


def test_a_batch_has_a_link_to_each_of_its_senders_and_says_nothing_of_wrong_headers(
    settings: Settings, database: Engine, collector: Collector, traced: Callable[..., list[Running]]
) -> None:
    senders = [parent() for _ in range(200)]  # more than the library keeps by itself
    with KafkaProducer(**settings.kafka_client(), linger_ms=50) as producer:
        for number, (_, _, traceparent) in enumerate(senders):
            value = json.dumps({"text": f"{SECRET} {number}"}).encode()
            headers = [("traceparent", traceparent.encode()), ("tracestate", SECRET.encode())]
            producer.send(settings.kafka_topic, value, headers=headers, partition=0)
        for odd in (b"", b"\xff", b"00-0-0-00", b"0" * 600, None):
            headers = [("traceparent", odd or b"")]
            producer.send(settings.kafka_topic, json.dumps({"text": SECRET}).encode(), headers=headers, partition=0)
    parts = traced("bridge", "persist-worker")

    def linked() -> bool:
        handed = [span for span in collector.spans if span["name"].endswith("hand over")]
        links = {link for span in handed for link in span["links"]}
        alone = {(span["trace"], span["parent"]) for span in handed}
        assert sum(span["messaging.batch.message_count"] for span in handed) == 205
        return links | alone >= {(trace, span) for trace, span, _ in senders}

    eventually(linked, 20)
    # The worker sends its spans by itself, perhaps later than the bridge.
    stored = eventually(lambda: [span for span in collector.spans if span["name"] == "persist_text"], 20)
    handed = {span["id"]: span["trace"] for span in collector.spans if span["name"].endswith("hand over")}
    assert all(handed[span["parent"]] == span["trace"] for span in stored)
    for part in parts:
        assert SECRET not in (said := part.log.read_text()), said
        assert "traceparent" not in said, said


@pytest.mark.parametrize(("batch", "links"), [(50, 2_000), (5_000, 5_000)])
def test_a_span_takes_as_many_links_as_a_hand_over_has_records(batch: int, links: int) -> None:
    assert spans.limits(Settings(bridge_batch_max=batch)).max_links == links


def test_a_collector_that_is_away_holds_nobody_up(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    away = "http://127.0.0.1:1"
    parts = [start(name, otel_exporter_otlp_endpoint=away) for name in ("bridge", "persist-worker")]
    with KafkaProducer(**settings.kafka_client()) as producer:
        producer.send(settings.kafka_topic, json.dumps({"text": "x"}).encode()).get(timeout=10)

    def stored() -> bool:
        with database.connect() as connection:
            return bool(connection.execute(text("SELECT count(*) FROM text_messages")).scalar_one())

    eventually(stored)
    for each in parts:
        each.ask_to_stop()
        eventually(lambda each=each: not each.alive, each.part.stop_seconds)  # type: ignore[misc]


WITHOUT = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Missing())
"""


@pytest.mark.parametrize("part", ["bridge", "worker", "api"])
def test_without_the_packages_a_part_says_what_to_install(part: str) -> None:
    starts = {
        "bridge": "from bridge.command_line import main; sys.exit(main([]))",
        "worker": "sys.argv = 'celery -A tasks.app worker -Q persist --pool solo'.split();"
        "from tasks.celery import celery; celery()",
        "api": "sys.argv = 'gunicorn --bind 127.0.0.1:0 api.wsgi:text_api'.split();"
        "from gunicorn.app.wsgiapp import run; run()",
    }
    ended = run(f"{WITHOUT}\n{starts[part]}", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4318")
    assert ended.returncode == 2
    assert "requirements-otel.txt` installs what it needs" in ended.stderr
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.splitlines()) < 5, ended.stderr


def test_without_an_endpoint_nothing_is_loaded_and_nothing_wrapped() -> None:
    program = """
import sys
from types import SimpleNamespace
import settings
from api import wsgi
from api.app import create_app
from bridge.hand_over import HandOvers
from celery.signals import before_task_publish, task_prerun
from tasks import embed, measured, persist
from telemetry import tracing
wsgi.text_api
hand_overs = HandOvers(settings.load(), None, None)
tracing.watch_bridge(settings.load(), hand_overs)
before = len(task_prerun.receivers), len(before_task_publish.receivers)
tracing.watch_worker(settings.load())
assert vars(hand_overs).keys() & {"begin", "publish"} == set()
assert before == (len(task_prerun.receivers), len(before_task_publish.receivers))
mine = ("telemetry.spans", "api.spans", "opentelemetry.exporter", "opentelemetry.sdk.trace")  # redis-py loads others
print([name for name in sys.modules if name.startswith(mine)])
"""
    ended = run(program)
    assert (ended.stdout, ended.returncode) == ("[]\n", 0), ended.stderr


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "KAFKA_PORT": "1", "REDIS_PORT": "1", "DATABASE_PORT": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_request_hands_its_context_on_without_the_packages(settings: Settings, start: Callable[..., Running]) -> None:
    start("text-api", post_wait_seconds=0.1)
    _, _, traceparent = parent()
    for number, given in enumerate((traceparent, "00-nonsense", traceparent.replace("00-", "ff-", 1))):
        answer = requests.post(
            f"http://127.0.0.1:{settings.text_api_port}/messages",
            json={"message": "x", "id": f"m{number}"},
            headers={"traceparent": given, "tracestate": "a=b"},
            timeout=20,
        )
        assert answer.status_code == 202, answer.text

    def all_three() -> dict[bytes, Any] | None:
        found = {each.key: each.headers for each in log_of(settings)}
        return found if len(found) == 3 else None

    assert eventually(all_three) == {
        b"m0": [("traceparent", traceparent.encode()), ("tracestate", b"a=b")],
        b"m1": [],
        b"m2": [],
    }


def test_a_collector_that_is_away_is_said_once_and_when_it_is_back(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    exporter = spans.Exporter(endpoint=f"{collector.url}/v1/traces")
    for status in (200, 404, 404, 200, 200):
        collector.status = status
        exporter.export([])
    away, back = caplog.records
    assert away.getMessage().startswith("traces are dropped, the collector does not take them: ")
    assert "404" in away.getMessage()
    assert back.getMessage() == "the collector takes traces again"


@pytest.mark.parametrize("status", [200, 404])
def test_nor_does_one_whose_headers_are_none_make_lines(
    status: int, collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.status, collector.odd_line = status, b"no header at all\r\n"
    exporter = spans.Exporter(endpoint=f"{collector.url}/v1/traces")
    for _ in range(2):
        exporter.export([])
    assert ["404" in record.getMessage() for record in caplog.records] == [True] * (status == 404)


def test_nor_does_one_that_does_not_listen_make_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody listens at port 1."""
    exporter = spans.Exporter(endpoint="http://127.0.0.1:1/v1/traces", timeout=spans.EXPORT_SECONDS)
    for _ in range(2):
        exporter.export([])
    (away,) = caplog.records
    assert "Connection refused" in away.getMessage()
