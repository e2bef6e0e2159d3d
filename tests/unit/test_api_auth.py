"""With API_KEYS set, every call but the open ones wants a key; a browser is asked once and keeps a cookie."""

import base64
import html
import re
import time
from dataclasses import replace

import pytest
from flask.testing import FlaskClient

from api import auth
from api.app import create_app
from api.parts import Role
from settings import Settings

KEYS = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing", api_keys="alpha, bêta")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def client(role: Role = "search", settings: Settings = KEYS) -> FlaskClient:
    return create_app(role, settings).test_client()


@pytest.mark.parametrize(
    ("role", "method", "path"),
    [
        ("text", "GET", "/messages"),
        ("text", "POST", "/messages"),
        ("text", "POST", "/messages/batch"),
        ("text", "GET", "/messages/a"),
        ("text", "DELETE", "/messages/a"),
        ("text", "GET", "/stats"),
        ("text", "GET", "/docs"),
        ("text", "GET", "/openapi.json"),
        ("text", "GET", "/nothing"),
        ("text", "PUT", "/messages"),
        ("search", "POST", "/embeddings/search"),
        ("search", "GET", "/embeddings/a/similar"),
        ("search", "GET", "/status"),
        ("search", "GET", "/"),
    ],
)
def test_without_a_key_it_is_401(role: Role, method: str, path: str) -> None:
    answer = client(role).open(path, method=method)
    assert answer.status_code == 401
    assert answer.content_type == "application/problem+json"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_health_and_metrics_are_open(path: str) -> None:
    assert client().get(path).status_code in (200, 503)


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer alpha"},
        {"Authorization": "bearer  alpha"},
        {"X-API-Key": "alpha"},
        {"X-API-Key": "bêta".encode().decode("latin-1")},
        {"X-API-Key": "wrong", "Authorization": "Bearer alpha"},
        {"X-API-Key": "alpha", "Authorization": "Bearer wrong"},
    ],
)
def test_each_key_opens_in_either_header(headers: dict[str, str]) -> None:
    assert client().get("/openapi.json", headers=headers).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer alph"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": "alpha"},
        {"Authorization": "Basic " + base64.b64encode(b"alpha:alpha").decode()},
        {"X-API-Key": ""},
        {"X-API-Key": "alpha, bêta".encode().decode("latin-1")},
        {"X-API-Key": "wrong", "Authorization": "Bearer wrong"},
    ],
)
def test_anything_else_does_not(headers: dict[str, str]) -> None:
    assert client().get("/openapi.json", headers=headers).status_code == 401


def test_without_api_keys_no_key_is_asked_for() -> None:
    assert client(settings=Settings(database_port=1)).get("/openapi.json").status_code == 200


def test_a_browser_is_asked_once_and_keeps_a_cookie() -> None:
    browser = client()
    page = browser.get("/docs", headers=BROWSER)
    assert page.status_code == 401
    assert 'name="key"' in page.text
    assert 'value="/docs"' in page.text

    assert 'value="/docs?q=a%20b&amp;c=1"' in browser.get("/docs?q=a%20b&c=1", headers=BROWSER).text

    wrong = browser.post("/session", data={"key": "gamma", "then": "/docs"})
    assert wrong.status_code == 401
    assert "not one of the keys" in wrong.text
    assert "Set-Cookie" not in wrong.headers
    again = browser.get("/session", headers=BROWSER)  # as Enter in the address bar of that page
    assert (again.status_code, again.headers["Location"]) == (303, "/")

    right = browser.post("/session", data={"key": "alpha", "then": "/docs"})
    assert (right.status_code, right.headers["Location"]) == (303, "/docs")
    cookie = right.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie, "a link from another site finds its reader signed in"
    assert "Secure" not in cookie
    assert "alpha" not in cookie
    assert browser.get("/docs", headers=BROWSER).status_code == 200
    assert browser.get("/openapi.json").status_code == 200

    assert browser.post("/session/end").status_code == 303
    assert browser.get("/docs", headers=BROWSER).status_code == 401


@pytest.mark.parametrize("path", ["/session/end", "/console/dead-letters/replay", "/console/failures/retry"])
def test_a_button_of_a_page_whose_session_is_over_leads_to_the_page_that_asks_for_the_key(path: str) -> None:
    browser = client()
    page = browser.post(path, headers=BROWSER, content_type="application/x-www-form-urlencoded")
    assert (page.status_code, page.mimetype) == (401, "text/html")
    assert 'name="then" value="/"' in page.text
    # Enter in the address bar of that page asks for the key, too, and leads back there.
    assert browser.post("/session", data={"key": "alpha", "then": path}).headers["Location"] == path
    assert browser.get(path, headers=BROWSER).headers["Location"] == "/"


def test_a_program_that_says_that_it_takes_html_gets_a_problem_for_what_it_sends() -> None:
    """As Java's HttpURLConnection does unless it is told otherwise."""
    answer = client("text").post("/messages", json={"message": "text"}, headers=BROWSER)
    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")


def test_another_installation_on_this_host_has_a_session_of_its_own() -> None:
    """A browser sends both the cookies of either: they are kept by host, whatever the port."""
    browser, other = client(), client(settings=replace(KEYS, api_keys="gamma"))
    for each, key in ((browser, "alpha"), (other, "gamma")):
        assert each.post("/session", data={"key": key, "then": "/"}).status_code == 303
    theirs = other.get_cookie(auth.cookie_name("gamma"))
    assert theirs
    browser.set_cookie(theirs.key, theirs.value)
    assert browser.get("/docs", headers=BROWSER).status_code == 200
    assert browser.post("/session/end").status_code == 303
    assert browser.get_cookie(theirs.key) is not None
    assert browser.get("/docs", headers=BROWSER).status_code == 401


@pytest.mark.parametrize("raw", ["as it came", None, "http://example.org/", "//example.org/", "/a\\b", "/\xe9"])
def test_a_copied_link_of_any_id_is_where_signing_in_leads(raw: str | None) -> None:
    """An id of "a/<b>?c=%2F#d é", whether or not the server hands on how it was written."""
    link = "/messages/a%2F%3Cb%3E%3Fc%3D%252F%23d%20%C3%A9"
    given = {} if raw == "as it came" else {"RAW_URI": raw or ""}
    page = client("text").get(f"{link}?x=%26&y=1", headers=BROWSER, environ_overrides=given)
    then = re.search(r'name="then" value="([^"]*)"', page.text)
    assert then
    expected = link if raw == "as it came" else link.replace("%2F%3C", "/%3C")
    assert html.unescape(then[1]) == f"{expected}?x=%26&y=1"
    answer = client("text").post("/session", data={"key": "alpha", "then": html.unescape(then[1])})
    assert answer.headers["Location"] == f"{expected}?x=%26&y=1"


@pytest.mark.parametrize("path", ["//example.org/", "//example.org/%2F", "/%5Cexample.org"])
def test_no_path_leads_elsewhere_after_signing_in(path: str) -> None:
    for given in ({}, {"RAW_URI": ""}):
        page = client("text").get("/", headers=BROWSER, environ_overrides={"PATH_INFO": path, "RAW_URI": path, **given})
        then = re.search(r'name="then" value="([^"]*)"', page.text)
        assert then
        assert not then[1].startswith(("//", "/\\"))


def test_the_cookie_ends_with_its_key_and_with_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = auth.new_cookie("alpha")
    assert auth.cookie_is_right(cookie, KEYS)
    assert not auth.cookie_is_right(cookie, Settings(api_keys="bêta"))
    for forged in ("", ".", cookie + "0", cookie[:-1], "9" + cookie, "٣" + cookie, f"{'9' * 30}.{cookie}"):
        assert not auth.cookie_is_right(forged, KEYS)
    assert not auth.cookie_is_right(cookie + "é", KEYS), "which no signature can be compared with"
    later = time.time() + auth.DAYS * 24 * 3600 + 1
    monkeypatch.setattr(time, "time", lambda: later)
    assert not auth.cookie_is_right(cookie, KEYS)


@pytest.mark.parametrize(
    "then",
    [
        "https://example.org/",
        "//example.org",
        "///example.org",
        "/\\example.org",
        "javascript:1",
        "x",
        "/a\r\nb",
        "http://[",
    ],
)
def test_nobody_is_sent_elsewhere_after_signing_in(then: str) -> None:
    answer = client().post("/session", data={"key": "alpha", "then": then})
    assert answer.headers["Location"] == "/"


def test_a_cookie_that_came_by_https_goes_by_nothing_else() -> None:
    answer = client().post("/session", data={"key": "alpha", "then": "/"}, base_url="https://localhost/")
    assert "Secure" in answer.headers["Set-Cookie"]


def test_the_document_speaks_of_keys_only_where_there_are_any() -> None:
    with_keys = client().get("/openapi.json", headers={"X-API-Key": "alpha"}).json
    without = client(settings=Settings(database_port=1)).get("/openapi.json").json
    assert with_keys is not None
    assert without is not None
    assert set(with_keys["components"]["securitySchemes"]) == {"bearer", "key"}
    assert "401" in with_keys["paths"]["/status"]["get"]["responses"]
    assert "security" not in with_keys["paths"]["/health"]["get"]
    assert "securitySchemes" not in without["components"]
    assert "401" not in without["paths"]["/status"]["get"]["responses"]
