"""cli.py against a small HTTP server: what it sends, what it prints, and its exit codes."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO, TextIOWrapper
from typing import Any

import pytest

from clients import rest, rest_commands, show
from clients.terminal import WrongUsage
from settings import Settings

MESSAGE = {
    "id": "0b0f2f0e-0000-5000-8000-000000000000",
    "source_id": "test-123",
    "message": "Hello \x1b[31mred\nworld",
    "metadata": {"n": 1.5},
    "created_at": "2025-01-31T12:00:00+00:00",
    "processed_at": "2025-01-31T12:00:01+00:00",
    "embedding": "ready",
}


class Server:
    """Answers every call with `status` and `body`, and keeps what came."""

    def __init__(self) -> None:
        self.status = 200
        self.body: object = {}
        self.leads_to = ""
        self.calls: list[tuple[str, str, bytes, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.calls.append((self.command, self.path, content, dict(self.headers)))
                body = outer.body if isinstance(outer.body, bytes) else json.dumps(outer.body).encode()
                self.send_response(outer.status)
                self.send_header("Content-Length", str(len(body)))
                if outer.leads_to:
                    self.send_header("Location", outer.leads_to)
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield made
    made.http.shutdown()
    thread.join()
    made.http.server_close()


def sent(server: Server) -> Any:
    return json.loads(server.calls[-1][2])


def test_no_proxy_is_asked_for_what_runs_on_this_machine(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert rest.Api(server.url).call("GET", "/health").status == 200


def test_create_sends_the_text_and_shows_the_stored_message(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status, server.body = 201, MESSAGE
    assert rest_commands.main(["--url", server.url, "create", "Hello over REST"]) == 0
    assert server.calls[-1][:2] == ("POST", "/messages")
    assert sent(server) == {"message": "Hello over REST"}
    assert "source_id: test-123\n" in capsys.readouterr().out


def test_metadata_keeps_every_digit(server: Server) -> None:
    server.status, server.body = 201, MESSAGE
    metadata = '{"n": 1.2300, "big": 123456789012345678901234567890}'
    assert rest_commands.main(["create", "x", "--id", "a/b", "--metadata", metadata, "--url", server.url]) == 0
    assert f'"metadata": {metadata}'.encode() in server.calls[-1][2]
    assert sent(server)["id"] == "a/b"


def test_create_reads_standard_input(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.status, server.body = 201, MESSAGE
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO("größer\n\n".encode())))
    assert rest_commands.main(["--url", server.url, "create", "-"]) == 0
    assert sent(server) == {"message": "größer\n"}


def test_an_accepted_message_says_so(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status, server.body = 202, {"id": "x", "status": "accepted"}
    assert rest_commands.main(["--url", server.url, "create", "text"]) == 0
    assert "accepted" in capsys.readouterr().out


@pytest.mark.parametrize("status", [301, 302, 308])
def test_a_text_that_is_sent_to_where_the_api_is_no_more_is_not_lost_unsaid(
    server: Server, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    server.status, server.leads_to = status, "https://texts.example/messages"
    assert rest_commands.main(["--url", server.url, "create", "text"]) == 1
    assert len(server.calls) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "is at https://texts.example/messages now: check --url" in shown.err


def test_a_key_goes_to_the_server_that_it_was_given_for(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    elsewhere = Server()
    thread = threading.Thread(target=elsewhere.http.serve_forever, daemon=True)
    thread.start()
    elsewhere.body = MESSAGE
    server.status, server.leads_to = 302, f"{elsewhere.url}/messages/x"
    try:
        assert rest_commands.main(["--url", server.url, "--api-key", "secret", "get", "x"]) == 1
        assert f"is at {elsewhere.url}/messages/x now: check --url" in capsys.readouterr().err
        assert elsewhere.calls == []
        assert rest_commands.main(["--url", server.url, "get", "x"]) == 0, "without a key nobody can take it"
    finally:
        elsewhere.http.shutdown()
        elsewhere.http.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("target", "is_same"),
    [
        ("http://texts.example:5002/health", True),
        ("https://texts.example/health", True),
        ("https://texts.example:8443/health", True),
        ("http://texts.example:5003/health", False),
        ("https://other.example/health", False),
        ("ftp://texts.example:5002/health", False),
    ],
)
def test_which_server_is_the_same(target: str, is_same: bool) -> None:
    assert rest.is_same_server("http://texts.example:5002/health", target) is is_same
    assert not rest.is_same_server("https://texts.example/health", "http://texts.example/health")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"ok": true}'])
def test_an_answer_that_is_none_of_the_apis_says_so(
    server: Server, capsys: pytest.CaptureFixture[str], body: bytes
) -> None:
    server.body = body
    search = ["search", "query", "--search-url", server.url]
    for command in (["create", "text"], ["get", "x"], ["list"], search, ["trace", "x"], ["health"]):
        assert rest_commands.main(["--url", server.url, *command]) == 1
        assert "is it the right URL?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("test-123", "/messages/test-123"),
        ("a/b", "/messages/a%2Fb"),
        ("a b?c#ü", "/messages/a%20b%3Fc%23%C3%BC"),
    ],
)
def test_get_takes_any_id(server: Server, given: str, path: str) -> None:
    server.body = MESSAGE
    assert rest_commands.main(["--url", server.url, "get", given]) == 0
    assert server.calls[-1][:2] == ("GET", path)


def test_json_is_what_came(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = b'{"n": 1.2300}\n'
    assert rest_commands.main(["--json", "--url", server.url, "stats"]) == 0
    assert capsys.readouterr().out == '{"n": 1.2300}\n'


def test_lines_in_a_pipe_hold_no_line_breaks_and_nothing_that_a_terminal_obeys(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.body = {"messages": [MESSAGE], "count": 1, "next": "more"}
    assert rest_commands.main(["--url", server.url, "list", "--limit", "1", "--q", "a b", "--cursor", "c"]) == 0
    assert server.calls[-1][1] == "/messages?limit=1&cursor=c&q=a+b"
    printed = capsys.readouterr()
    assert printed.out == "test-123\t2025-01-31T12:00:00+00:00\tready\tHello \N{REPLACEMENT CHARACTER}[31mred world\n"
    assert printed.err == "more: --cursor more\n"


def test_search_goes_to_the_search_api(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    hit = {**MESSAGE, "passage": "Hello", "score": 0.51239}
    server.body = {"query": "q", "mode": "keyword", "model": "m", "took_ms": 1, "count": 1, "results": [hit]}
    options = ["--limit", "5", "--mode", "keyword", "--filter", '{"a": 1.0}']
    assert rest_commands.main(["search", "machine learning", "--search-url", server.url, *options]) == 0
    assert server.calls[-1][:2] == ("POST", "/embeddings/search")
    assert sent(server) == {"query": "machine learning", "limit": 5, "mode": "keyword", "filter": {"a": 1.0}}
    assert capsys.readouterr().out == "0.512\ttest-123\tHello\n"


@pytest.mark.parametrize(
    ("url", "search"),
    [
        ("http://localhost:5002", "http://localhost:5003"),
        ("http://[::1]:5002/", "http://[::1]:5003"),
        ("https://example.org", "https://example.org:5003"),
        ("localhost:5002", "http://localhost:5003"),
    ],
)
def test_the_search_api_is_beside_the_text_api(url: str, search: str) -> None:
    assert rest.search_url(url, Settings()) == search


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:y", "http://x:0", ":"])
def test_what_is_no_url_is_wrong_usage(url: str) -> None:
    with pytest.raises(WrongUsage):
        rest.split(url)


def test_the_first_of_the_api_keys_is_sent(server: Server) -> None:
    assert Settings(api_keys=" , one, two").own_api_key == "one"
    assert Settings().own_api_key is None
    assert rest_commands.main(["--url", server.url, "--api-key", "mine", "--json", "stats"]) == 0
    assert server.calls[-1][3]["Authorization"] == "Bearer mine"


def test_a_refusal_is_one_line_and_1(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 503
    server.body = {"title": "Unavailable", "detail": "Kafka is\naway", "id": "x-1"}
    assert rest_commands.main(["--url", server.url, "create", "x"]) == 1
    assert capsys.readouterr().err == "cli.py: 503 Service Unavailable: Kafka is away (id x-1)\n"


def test_an_unhealthy_system_is_shown_and_1(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.status = 503
    server.body = {"status": "unavailable", "checks": {"database": "ok", "kafka": "no answer"}}
    assert rest_commands.main(["--url", server.url, "health"]) == 1
    printed = capsys.readouterr()
    assert "kafka: no answer" in printed.out
    assert printed.err.startswith("cli.py: kafka: no answer")


def test_something_else_at_the_port_is_1(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.body = b"<html>hello</html>"
    assert rest_commands.main(["--url", server.url, "list"]) == 1
    assert "is it the right URL" in capsys.readouterr().err


def test_nobody_there_is_3(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.http.socket.close()
    assert rest_commands.main(["--url", server.url, "health"]) == 3
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "./start.sh" in printed


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nothing"],
        ["create"],
        ["create", "x", "--metadata", "[1]"],
        ["create", "x", "--metadata", "{"],
        ["list", "--limit", "x"],
        ["search", "x", "--mode", "best"],
        ["--url", "ftp://x", "health"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rest_commands.main(arguments) == 2


@pytest.mark.parametrize("command", ["health", "list", "create", "get", "search", "stats"])
def test_every_command_has_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rest_commands.main([command, "--help"]) == 0
    assert f"python cli.py {command}" in capsys.readouterr().out


def test_bars_grow_with_the_numbers() -> None:
    assert show.spark([0, 1, 4, 7]) == "▁▂▅█"
    assert show.spark([]) == ""


@pytest.mark.parametrize("words", [["get", "x"], ["--json", "get", "x"]])
def test_a_number_of_thousands_of_digits_is_shown(
    server: Server, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    digits = "9" * 5_000
    server.body = json.dumps({**MESSAGE, "metadata": {"n": "?"}}).replace('"?"', digits).encode()
    assert rest_commands.main(["--url", server.url, *words]) == 0
    assert f'{{"n": {digits}}}' in capsys.readouterr().out


def test_metadata_may_hold_a_number_of_thousands_of_digits(server: Server) -> None:
    server.status, server.body = 201, MESSAGE
    metadata = f'{{"n": {"9" * 5_000}}}'
    assert rest_commands.main(["--url", server.url, "create", "x", "--metadata", metadata]) == 0
    assert metadata.encode() in server.calls[-1][2]


def test_metadata_that_are_nested_too_deeply_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert rest_commands.main(["create", "x", "--metadata", "[" * 100_000]) == 2
    assert "nested too deeply" in capsys.readouterr().err


@pytest.mark.parametrize("mark", ["\x9b", "\u2028", "\u202e", "\u200f"])
def test_json_that_came_with_marks_is_printed_with_escapes(
    server: Server, capsys: pytest.CaptureFixture[str], mark: str
) -> None:
    server.body = json.dumps({**MESSAGE, "message": f"größer{mark}"}, ensure_ascii=False).encode()
    assert rest_commands.main(["--url", server.url, "--json", "get", "x"]) == 0
    printed = capsys.readouterr().out
    assert mark not in printed
    assert json.loads(printed)["message"] == f"größer{mark}"
