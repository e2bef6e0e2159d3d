"""The running pipeline as a test sees it from outside: it sends records, and asks the two APIs over HTTP."""

import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import requests
from kafka import KafkaProducer

from settings import Settings
from tests.parts import Running, eventually

PARTS = ("bridge", "persist-worker", "embed-worker", "beat", "text-api", "search-api")


class Pipeline:
    """A running pipeline. Its settings and its parts are there too, for tests that look behind the APIs."""

    def __init__(self, settings: Settings, running: dict[str, Running]) -> None:
        self.settings = settings
        self.running = running
        self.text_api = f"http://127.0.0.1:{settings.text_api_port}"
        self.search_api = f"http://127.0.0.1:{settings.search_api_port}"
        self.http = requests.Session()
        self.http.trust_env = False  # no proxy between us and ourselves

    def __enter__(self) -> Self:
        self.producer = KafkaProducer(**self.settings.kafka_client(), acks="all")
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.producer.close(timeout=5)
        self.http.close()

    def produce(self, value: object, *, key: bytes | None = None, headers: Sequence[tuple[str, bytes]] = ()) -> Any:
        """Sends a record and returns its metadata once Kafka has it. Anything but bytes and None goes as JSON."""
        content = value if value is None or isinstance(value, bytes) else json.dumps(value).encode()
        return self.producer.send(self.settings.kafka_topic, content, key=key, headers=list(headers)).get(timeout=10)

    def send(self, text: str, **fields: object) -> str:
        """Sends a text under a new id, or the one given, and returns that id."""
        message_id = str(fields.pop("id", uuid.uuid4()))
        self.produce({"id": message_id, "text": text, **fields})
        return message_id

    def message(self, message_id: str) -> dict[str, Any] | None:
        """What `GET /messages/ID` answers, or None for 404."""
        answer = self.http.get(f"{self.text_api}/messages/{message_id}", timeout=10)
        assert answer.status_code in (200, 404), answer.text
        return dict(answer.json()) if answer.status_code == 200 else None

    def search(self, query: str, **more: object) -> list[dict[str, Any]]:
        answer = self.http.post(f"{self.search_api}/embeddings/search", json={"query": query, **more}, timeout=10)
        assert answer.status_code == 200, answer.text
        return list(answer.json()["results"])

    def wait_until_ready(self, message_id: str, timeout: float = 15) -> dict[str, Any]:
        """Waits until a message is stored and has its embedding, and returns it."""

        def ready() -> dict[str, Any] | None:
            found = self.message(message_id)
            return found if found is not None and found["embedding"] == "ready" else None

        found = eventually(ready, timeout)
        assert found is not None
        return found
