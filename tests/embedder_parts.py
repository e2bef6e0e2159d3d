"""What the tests of the embedding providers share: the built model, and a server that answers like OpenAI's."""

import base64
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from embedder import build_minilm, minilm_files
from embedder.hashing import HashingEmbedder
from settings import Settings

KEY = "sk-secret-0123456789"
HASHING = HashingEmbedder()

# Pairs that mean the same and share hardly a word, and one that means something else.
SAME_MEANING = [
    ("A kitten slept on the sofa", "The young cat was napping on the couch", "Interest rates were raised by the bank"),
    ("How do I reset my password?", "I cannot log in to my account any more", "Fresh bread from the village bakery"),
    ("The film was a waste of time", "I did not enjoy that movie at all", "A compiler for embedded processors"),
]


def int8_model() -> Path:
    return build_minilm.build(minilm_files.INT8)


def fp32_model() -> Path:
    return build_minilm.build(minilm_files.FP32)


class Answer(NamedTuple):
    """One answer that the server gives instead of embeddings."""

    status: int
    headers: Mapping[str, str] = MappingProxyType({})
    body: str = '{"error": {"message": "as the test wants it"}}'


class EmbeddingServer(ThreadingHTTPServer):
    """POST /v1/embeddings on a free port, with vectors of the hashing provider; a test may change what it does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Embeddings)
        self.answers: list[Answer] = []  # the next ones, in order
        self.requests: list[dict[str, Any]] = []
        self.connections = 0
        self.dimensions = HASHING.dimensions
        self.batch_max = 2048
        self.plain_numbers = False
        self.refuses_base64 = False
        self.fails_over: set[str] = set()  # each question with one of these texts is answered by 500
        self.spoilt: dict[str, str] = {}  # what, in JSON, comes instead of the vector of a text
        self.close_after_answer = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def settings(self, **changes: Any) -> Settings:
        chosen = {"openai_base_url": self.url, "openai_api_key": KEY, "openai_timeout_seconds": 5.0, **changes}
        return Settings(embedding_provider="openai", **chosen)


class Embeddings(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EmbeddingServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(question)
        if self.server.answers:
            answer = self.server.answers.pop(0)
        elif self.path != "/v1/embeddings":
            answer = Answer(404)
        elif self.headers["Authorization"] != f"Bearer {KEY}":
            answer = Answer(401, {}, json.dumps({"error": {"message": f"bad key {self.headers['Authorization']}"}}))
        else:
            answer = self.embed(question)
        body = answer.body.encode()
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = self.server.close_after_answer

    def embed(self, question: dict[str, Any]) -> Answer:
        texts = question["input"]
        if len(texts) > self.server.batch_max:
            return Answer(413, {}, '{"error": "too many inputs"}')
        if any(text == "" or "REFUSED" in text for text in texts):
            return Answer(400, {}, json.dumps({"error": {"message": f"an input is invalid ({KEY})"}}))
        if self.server.refuses_base64 and "encoding_format" in question:
            return Answer(400, {}, '{"error": {"message": "UnsupportedParamsError: encoding_format"}}')
        if not self.server.fails_over.isdisjoint(texts):
            return Answer(500, {}, '{"error": "failed to encode response: json: unsupported value: NaN"}')
        dimensions = question.get("dimensions", self.server.dimensions)
        vectors = HASHING.embed(texts)[:, :dimensions] * 3  # not of unit length, like those of many servers
        vectors[~vectors.any(axis=1)] = 1
        data = [
            {
                "object": "embedding",
                "index": row,
                "embedding": json.loads(self.server.spoilt[texts[row]])
                if texts[row] in self.server.spoilt
                else vector.tolist()
                if self.server.plain_numbers
                else base64.b64encode(vector.astype("<f4").tobytes()).decode(),
            }
            for row, vector in enumerate(vectors)
        ]
        return Answer(200, {}, json.dumps({"object": "list", "data": data[::-1], "model": question["model"]}))

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Gate(EmbeddingServer):
    """Holds back its answers while it is closed, but for those that a provider asks for at its start. `inside` has the
    texts of each question that came to it."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Gated
        self.open = threading.Event()
        self.open.set()
        self.inside: list[list[str]] = []

    def has(self, message: str) -> bool:
        return any(message in texts for texts in self.inside)


class Gated(Embeddings):
    server: Gate

    def embed(self, question: dict[str, Any]) -> Answer:
        if question["input"] not in (["probe"], ["warm up"]):
            self.server.inside.append(question["input"])
            assert self.server.open.wait(60)
        return super().embed(question)


@contextmanager
def a_gate() -> Iterator[Gate]:
    with Gate() as gate, serving(gate):
        try:
            yield gate
        finally:
            gate.open.set()  # whoever waits in it has to come out before it ends


@contextmanager
def embedding_server() -> Iterator[EmbeddingServer]:
    with EmbeddingServer() as server, serving(server):
        yield server


@contextmanager
def serving(server: EmbeddingServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
