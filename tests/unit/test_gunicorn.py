"""How the APIs' server behaves among many clients, with an application in the place of an API that only
reads its requests; and what a real API says to clients that it cannot read."""

import contextlib
import os
import resource
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.servers import free_ports
from settings import ROOT
from tests.parts import eventually

MOST_FILES = 1024  # what most systems let a process open

APPLICATION = """
import os
from types import SimpleNamespace

LARGE = bytes(16_000_000)  # more than the buffers of a connection hold

class Application:
    extensions = {"parts": SimpleNamespace(begin=lambda: None)}

    def __call__(self, environ, start_response):
        environ["wsgi.input"].read()
        start_response("200 OK", [("Connection", "close")])
        return [LARGE if "HTTP_LARGE" in environ else str(os.getpid()).encode()]

application = Application()
"""

# Nothing listens at these ports.
SEARCH_API = """
from api.app import create_app
from settings import Settings

application = create_app(
    "search", Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing", max_body_bytes=4_500)
)
"""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    with served(tmp_path, APPLICATION) as port:
        yield port


@pytest.fixture(scope="module")
def search_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with served(tmp_path_factory.mktemp("api"), SEARCH_API) as port:
        eventually(lambda: answer_of(port, b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n"), timeout=30)
        yield port


@contextlib.contextmanager
def served(tmp_path: Path, application: str) -> Iterator[int]:
    """The port where gunicorn serves it, with waits for clients of a second."""
    (port,) = free_ports(1)
    (tmp_path / "served.py").write_text(application)
    configuration = tmp_path / "gunicorn.conf.py"
    configuration.write_text((ROOT / "gunicorn.conf.py").read_text() + "\nSTALL_SECONDS = UNREAD_SECONDS = 1\n")
    limited = "import resource, sys; from gunicorn.app.wsgiapp import run; "
    limited += f"resource.setrlimit(resource.RLIMIT_NOFILE, ({MOST_FILES}, {MOST_FILES})); run()"
    options = ["--config", str(configuration), "--bind", f"127.0.0.1:{port}", "--pythonpath", str(tmp_path)]
    server = subprocess.Popen([sys.executable, "-c", limited, *options, "served:application"], cwd=ROOT)
    try:
        yield port
    finally:
        server.terminate()
        server.wait(15)


def worker(port: int) -> int | None:
    """The pid of the worker that answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
            return int(answer.read())
    except OSError:
        return None


def test_a_worker_outlives_more_clients_than_it_may_open_files(port: int) -> None:
    pid = eventually(lambda: worker(port), timeout=30)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * MOST_FILES)), hard))
    clients: list[socket.socket] = []
    try:
        clients.extend(socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(MOST_FILES + 50))
        files = Path(f"/proc/{pid}/fd")
        eventually(lambda: not files.is_dir() or len(os.listdir(files)) > 900, timeout=15)
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert eventually(lambda: worker(port), timeout=15) == pid


@pytest.mark.parametrize(
    "rest",
    [b"X-", b"Content-Length: 100\r\n\r\n{", b"Connection: close\r\n\r\n", b"Large: 1\r\n\r\n"],
    ids=["stopped in its head", "stopped in its body", "answered, and left open", "not reading the answer"],
)
def test_clients_gone_without_a_word_hold_up_the_others_for_a_while_only(port: int, rest: bytes) -> None:
    pid = eventually(lambda: worker(port), timeout=30)
    clients = [socket.create_connection(("127.0.0.1", port), timeout=5) for _ in range(17)]
    try:
        for client in clients:
            client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n" + rest)
        time.sleep(0.5)  # until each of them has its thread
        assert eventually(lambda: worker(port), timeout=15) == pid
    finally:
        for client in clients:
            client.close()


def answer_of(port: int, sent: bytes) -> bytes:
    """What comes back while the connection stays open at this end; empty if nobody listens yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
            client.sendall(sent)
            answer = client.recv(65_536)
            while b"\r\n\r\n" in answer and (part := client.recv(65_536)):
                answer += part
            return answer
    except ConnectionRefusedError:
        return b""


FORMS = {
    b"application/x-www-form-urlencoded": b"letter=a",
    b"multipart/form-data; boundary=b": b'--b\r\nContent-Disposition: form-data; name="letter"\r\n\r\na',
}


@pytest.mark.parametrize("path", [b"/session", b"/console/dead-letters/drop"])
@pytest.mark.parametrize("kind", FORMS, ids=["urlencoded", "multipart"])
@pytest.mark.parametrize(
    ("announced", "sent", "status"),
    [
        (b"Content-Length: 2000", b"FORM", 408),
        (b"Transfer-Encoding: chunked", b"7d0\r\nFORM", 408),
        (b"Transfer-Encoding: chunked", b"zz\r\nFORM\r\n0\r\n\r\n", 400),
        (b"Transfer-Encoding: chunked", b"3e8\r\nFORM\r\n" * 5 + b"0\r\n\r\n", 413),
    ],
    ids=["stopped", "stopped in a chunk", "wrong chunks", "too large"],
)
def test_a_form_that_does_not_come_as_announced_is_told_like_json(
    search_api: int, path: bytes, kind: bytes, announced: bytes, sent: bytes, status: int
) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: %s\r\n%s\r\n\r\n"
    body = sent.replace(b"FORM", FORMS[kind].ljust(1000, b"a"))
    answer = answer_of(search_api, head % (path, kind, announced) + body)
    assert answer.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"application/problem+json" in answer


def test_another_programs_numbers_are_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    hooks = runpy.run_path(str(ROOT / "gunicorn.conf.py"))
    server = SimpleNamespace(cfg=SimpleNamespace(workers=1))
    hooks["on_starting"](server)
    hooks["on_exit"](server)
    assert tmp_path.is_dir()
