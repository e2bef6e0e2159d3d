"""The whole pipeline with a proxy before each of its servers, which a test may slow down or silence."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import requests
from kafka import KafkaProducer
from sqlalchemy import Engine

from settings import Settings
from tests.parts import Running, eventually
from tests.samples import ask, run
from tests.tcp_proxy import TcpProxy

PARTS = ("persist-worker", "embed-worker", "bridge", "beat", "text-api", "search-api")
ANSWER_SECONDS = 20.0


class Surrounded:
    """The parts reach Kafka, PostgreSQL and Redis through `kafka`, `database` and `redis`; the test does directly."""

    def __init__(self, settings: Settings, engine: Engine, start: Callable[..., Running]) -> None:
        self.settings = settings
        self.engine = engine
        self.kafka = TcpProxy(settings.kafka_port, kafka=True)
        self.database = TcpProxy(settings.database_port)
        self.redis = TcpProxy(settings.redis_port)
        self.proxies = (self.kafka, self.database, self.redis)
        self.http = requests.Session()
        self.http.trust_env = False
        self.producer = KafkaProducer(**settings.kafka_client(), acks="all")
        around = {
            "kafka_bootstrap_servers": f"127.0.0.1:{self.kafka.port}",
            "database_host": "127.0.0.1",
            "database_port": self.database.port,
            "redis_url": settings.redis_url.replace(f":{settings.redis_port}/", f":{self.redis.port}/"),
        }
        self.parts = [start(name, **around) for name in PARTS]

    def __enter__(self) -> Self:
        self.send("before")
        self.wait_until_embedded("before", 30)
        assert self.all_well()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """However slow a server was: no part has ended, nothing was buried, no attempt was counted to its end."""
        for proxy in self.proxies:
            proxy.reset()  # or the parts would wait for the silent ones once more before they end
        self.producer.close(timeout=5)
        self.http.close()
        if kind is None:
            assert all(part.alive for part in self.parts)
            assert ask(self.engine, "SELECT * FROM dead_letters") == []
            assert ask(self.engine, "SELECT * FROM embedding_failures") == []

    def send(self, name: str) -> None:
        """A record, and a row typed by hand, which beat and the sweep have to find."""
        record = json.dumps({"id": name, "text": name}).encode()
        self.producer.send(self.settings.kafka_topic, record).get(10)
        typed = "INSERT INTO text_messages (id, message) VALUES (gen_random_uuid(), :text)"
        run(self.engine, typed, text=f"typed {name}")

    def wait_until_embedded(self, name: str, timeout: float) -> None:
        """Waits for both that `send` has sent."""
        query = "SELECT message FROM text_messages WHERE id IN (SELECT message_id FROM message_embeddings)"
        eventually(lambda: {name, f"typed {name}"} <= {row["message"] for row in ask(self.engine, query)}, timeout)

    def answers(self) -> dict[str, int]:
        """The status of a call of each kind, all made at once. One that hangs fails."""
        text_api = f"http://127.0.0.1:{self.settings.text_api_port}"
        search_api = f"http://127.0.0.1:{self.settings.search_api_port}"
        asked: dict[str, tuple[str, str, object]] = {
            "message": ("GET", f"{text_api}/messages/before", None),
            "list": ("GET", f"{text_api}/messages", None),
            "stats": ("GET", f"{text_api}/stats", None),
            "health": ("GET", f"{text_api}/health", None),
            "search": ("POST", f"{search_api}/embeddings/search", {"query": "before"}),
            "status": ("GET", f"{search_api}/status", None),
            "post": ("POST", f"{text_api}/messages", {"message": "posted", "id": "posted"}),
        }

        def call(question: tuple[str, str, object]) -> int:
            method, url, body = question
            return self.http.request(method, url, json=body, timeout=ANSWER_SECONDS).status_code

        with ThreadPoolExecutor(len(asked)) as threads:
            return dict(zip(asked, threads.map(call, asked.values()), strict=True))

    def all_well(self) -> bool:
        return set(self.answers().values()) == {200, 201}

    def assert_answered(self) -> None:
        """Each call has an answer in time, if only an honest 503."""
        for name, status in self.answers().items():
            assert status in ((201, 202, 503) if name == "post" else (200, 503)), (name, status)
