"""Nothing waits for ever: probes, the log while Kafka is away, the model while it is loaded, a silent database."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, KafkaTimeoutError
from psycopg2 import extensions

import kafka_clients
from api import effects, kafka_client, kafka_log, model, model_places, waits
from api.app import create_app
from api.kafka_log import Appended, KafkaAway, KafkaLog
from api.model import Model
from api.next_model import NextModel
from api.observed import Watched
from api.probes import NoAnswer, Probe
from api.problems import Unavailable
from embedder import ModelError
from settings import Settings
from tests.parts import eventually


def test_a_probe_that_hangs_costs_one_thread_and_one_wait() -> None:
    asked = []
    answered = threading.Event()

    def hang() -> str:
        asked.append(1)
        answered.wait(10)
        return "at last"

    probe = Probe(hang, wait_seconds=0.05)
    for _ in range(3):
        with pytest.raises(NoAnswer, match=r"within 0\.05 s"):
            probe.answer()
    assert len(asked) == 1
    answered.set()
    probe.wait_seconds = 5
    assert probe.answer() == "at last"


def test_a_probe_hands_on_what_was_raised_and_asks_again() -> None:
    answers = iter([ValueError("no"), TimeoutError("slow"), None])

    def ask() -> str:
        error = next(answers)
        if error is not None:
            raise error
        return "yes"

    probe = Probe(ask, wait_seconds=5)
    with pytest.raises(ValueError, match="no"):
        probe.answer()
    with pytest.raises(TimeoutError, match="slow"):
        probe.answer()
    assert probe.answer() == "yes"


def test_a_probe_may_keep_its_answer_for_a_while() -> None:
    asked = []
    probe = Probe(lambda: asked.append(1), wait_seconds=5, keep_seconds=60)
    probe.answer()
    probe.answer()
    assert len(asked) == 1


def test_a_probe_keeps_what_was_raised_as_well() -> None:
    """Else a part that is away would be asked by every call."""
    asked = []

    def fail() -> None:
        asked.append(1)
        raise ValueError("no")

    probe = Probe(fail, wait_seconds=5, keep_seconds=60)
    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            probe.answer()
    assert len(asked) == 1


@pytest.fixture
def one_thread_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next thread of this test cannot be started, those after it can."""
    start, test = threading.Thread.start, threading.current_thread()

    def fail(thread: threading.Thread) -> None:
        if threading.current_thread() is not test:
            return start(thread)
        monkeypatch.setattr(threading.Thread, "start", start)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", fail)


@pytest.mark.usefixtures("one_thread_too_many")
def test_a_probe_that_no_thread_could_be_started_for_asks_at_the_next_call() -> None:
    probe = Probe(lambda: "it", wait_seconds=5)
    with pytest.raises(RuntimeError, match="new thread"):
        probe.answer()
    assert probe.answer() == "it"


@pytest.mark.usefixtures("one_thread_too_many")
def test_a_part_that_no_thread_could_be_started_for_is_asked_at_the_next_look() -> None:
    watched = Watched(lambda: "it", ())
    with pytest.raises(RuntimeError, match="new thread"):
        watched.look()
    assert watched.look(5).value == "it"


@pytest.mark.usefixtures("one_thread_too_many")
def test_a_model_that_no_thread_could_be_started_for_is_loaded_at_the_next_call() -> None:
    own = Model(Settings(embedding_provider="hashing"))
    with pytest.raises(RuntimeError, match="new thread"):
        own.ready()
    assert own.ready().dimensions


@pytest.mark.usefixtures("one_thread_too_many")
def test_a_model_that_no_thread_could_be_started_for_is_prepared_later() -> None:
    asked = threading.Event()
    ahead = NextModel(Settings(), lambda _name: asked.set())
    with pytest.raises(RuntimeError, match="new thread"):
        ahead.prepare("next")
    ahead.prepare("next")
    assert asked.wait(5)


class Refusing(KafkaLog):
    """A log whose producers take nothing. Making one fails as `makes` says, and then no more."""

    def __init__(self, *makes: Exception) -> None:
        super().__init__(Settings())
        self.makes = iter(makes)

    def _connect(self) -> Any:
        error = next(self.makes, None)
        if error is not None:
            raise error
        return SimpleNamespace(send=self.refuse, close=lambda timeout: None)

    def refuse(self, *_: object, **__: object) -> None:
        raise KafkaTimeoutError("not taken")


@pytest.mark.usefixtures("one_thread_too_many")
@pytest.mark.parametrize("makes", [(KafkaTimeoutError("away"),), ()], ids=["at first", "later"])
def test_without_a_look_out_each_call_tries_kafka(makes: tuple[Exception, ...]) -> None:
    log = Refusing(*makes)
    with pytest.raises(KafkaAway):
        log.append([("a", b"{}")])
    assert log.away is None
    log.open()
    log.close()


def test_the_look_out_outlives_an_error_of_any_kind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_log, "LOOK_OUT_SECONDS", 0.01)
    bug = RuntimeError("can't start new thread")
    log = Refusing(KafkaTimeoutError("away"), bug, bug, OSError("away"))
    with pytest.raises(KafkaAway):
        log.open()
    eventually(lambda: log.away is None)
    log.open()
    assert len([record for record in caplog.records if record.exc_info]) == 1, "said once"
    log.close()


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(50)
        yield listener.getsockname()[1]


def test_appending_fails_at_once_where_nobody_listens() -> None:
    log = KafkaLog(Settings(kafka_port=1))
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(KafkaAway, match="nobody listens"):
            log.append([("a", b"{}")])
    assert time.monotonic() - began < 1
    assert log.away is not None
    log.close()


def test_a_silent_kafka_is_waited_for_once(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    log = KafkaLog(Settings(kafka_port=silent_port))
    monkeypatch.setattr(kafka_client, "BLOCK_MS", 300)
    began = time.monotonic()
    with pytest.raises(KafkaAway):
        log.append([("a", b"{}")])
    assert time.monotonic() - began < 2
    began = time.monotonic()
    for _ in range(10):
        with pytest.raises(KafkaAway):
            log.append([("a", b"{}")])
    assert time.monotonic() - began < 0.2
    log.close()


def test_a_silent_database_is_given_up(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "CONNECT_SECONDS", 0.3)
    waits.bound()
    try:
        began = time.monotonic()
        with pytest.raises(psycopg2.OperationalError, match="does not answer"):
            psycopg2.connect(host="127.0.0.1", port=silent_port, user="a", password="b", dbname="c")
        assert time.monotonic() - began < 2
    finally:
        extensions.set_wait_callback(None)


def test_all_waits_of_one_call_end_together(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waits, "CALL_SECONDS", 0.3)
    monkeypatch.setattr(waits, "CONNECT_SECONDS", 1.0)

    def seconds() -> float:
        began = time.monotonic()
        with pytest.raises(psycopg2.OperationalError, match="does not answer"):
            psycopg2.connect(host="127.0.0.1", port=silent_port, user="a", password="b", dbname="c")
        return time.monotonic() - began

    waits.bound()
    try:
        with waits.one_call():
            assert seconds() < 0.9
            assert seconds() < 0.2
        assert seconds() > 0.9
    finally:
        extensions.set_wait_callback(None)


def test_what_a_model_takes_does_not_count_for_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(waits, "time", SimpleNamespace(monotonic=lambda: now))
    with waits.one_call():
        deadline = waits._call.deadline
        with waits.not_counted():
            now += 60.0
        assert waits._call.deadline == deadline + 60.0
    with waits.not_counted():  # no call has a deadline here
        now += 60.0
    assert waits._call.deadline == float("inf")


def test_a_model_that_cannot_be_loaded_is_told_and_tried_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def fail(_settings: Settings) -> None:
        tries.append(1)
        raise ModelError("there is no model: run make install")

    monkeypatch.setattr(model, "load_provider", fail)
    loading = Model(Settings())
    for _ in range(3):
        with pytest.raises(Unavailable, match="run make install"):
            loading.ready()
    assert len(tries) == 1
    monkeypatch.setattr(model, "AGAIN_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="run make install"):
        loading.ready()
    assert len(tries) == 2


@pytest.mark.parametrize(("provider", "has_bound"), [("openai", True), ("minilm", False)])
def test_only_so_many_wait_for_a_remote_model(provider: str, has_bound: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_places, "PLACE_SECONDS", 0.05)
    waited_for = Model(Settings(embedding_provider=provider))
    refused = 0
    for _ in range(2):  # all are free again afterwards
        with ExitStack() as places:
            for _ in range(2 * model_places.PLACES):
                try:
                    places.enter_context(waited_for.places.one())
                except Unavailable as error:
                    assert "mode keyword works" in error.detail
                    refused += 1
    assert refused == (2 * model_places.PLACES if has_bound else 0)


def test_a_remote_model_that_is_being_loaded_is_waited_for_by_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()
    monkeypatch.setattr(model_places, "PLACE_SECONDS", 0.05)
    monkeypatch.setattr(model, "load_provider", lambda _settings: silent.wait(30))
    waited_for = Model(Settings(embedding_provider="openai"))
    with ExitStack() as places:
        for _ in range(model_places.PLACES):
            places.enter_context(waited_for.places.one())
        with pytest.raises(Unavailable, match="as many searches as may wait"):
            waited_for.ready()
    silent.set()


def test_only_vectors_of_the_own_model_can_be_asked_for() -> None:
    own = Model(Settings(embedding_provider="hashing"))
    name = own.ready().model
    assert own.mismatch(None) is None
    assert own.mismatch(name) is None
    assert "some-other" in (own.mismatch("some-other") or "")


def test_what_kafka_has_is_accepted_however_the_database_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not 503, on which a client that gave no id would post its text once more, under another one."""
    app = create_app("text", Settings(database_host="127.0.0.1", database_port=1, post_wait_seconds=0.1))
    parts = app.extensions["parts"]
    broken = psycopg2.OperationalError("server closed the connection unexpectedly")

    def connect() -> None:
        raise broken

    monkeypatch.setattr(parts.log, "append", lambda records, headers: [Appended(1, 0, 0)])
    monkeypatch.setattr(parts.reader, "connect", connect)
    answer = app.test_client().post("/messages", json={"message": "a"})
    assert answer.status_code == 202
    assert answer.json is not None
    assert answer.headers["Location"] == f"/messages/{answer.json['id']}"
    parts.close()


def test_a_long_wait_needs_a_place_and_gives_it_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def sleep(seconds: float) -> None:
        nonlocal now
        now += seconds

    def waited() -> float:
        began = now
        assert effects.wait(parts, lambda *_: None) is None  # type: ignore[arg-type]
        return now - began

    monkeypatch.setattr(effects, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    parts = SimpleNamespace(
        settings=Settings(post_wait_seconds=5.0),
        reader=SimpleNamespace(connect=nullcontext),
        long_waits=threading.Semaphore(1),
    )
    for _ in range(2):
        assert waited() > 5.0 - 2 * effects.LAST_PAUSE
    assert parts.long_waits.acquire(blocking=False)
    assert waited() < effects.LONG_WAIT_SECONDS + 2 * effects.LAST_PAUSE


@pytest.mark.parametrize("client", [KafkaAdminClient, KafkaConsumer, KafkaProducer])
def test_a_client_that_does_not_reach_kafka_leaves_no_thread_behind(silent_port: int, client: type) -> None:
    before = set(threading.enumerate())
    with pytest.raises(KafkaError):
        kafka_clients.connect(client, Settings(kafka_port=silent_port), bootstrap_timeout_ms=200)
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(5)
    assert not [thread for thread in left if thread.is_alive()]
