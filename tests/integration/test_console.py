"""The console over HTTP: forms that are refused, pages while a part is away, lists page by page, and sessions."""

import base64
import itertools
import re
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient
from kafka import KafkaConsumer
from sqlalchemy import Connection, Engine, text

from api import auth
from api.app import create_app
from api.console import safety
from db import console_commands, console_queries, cursors, dead_letter_queries, dead_letters
from settings import Settings
from tests.parts import Running, eventually
from tests.pipeline import Pipeline
from tests.samples import run

TOKEN = re.compile(r'name="token" value="([0-9a-f]{64})"')
AWAY = Settings(database_port=1, kafka_port=1, redis_port=1, embedding_provider="hashing")
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
QUESTIONS = ["/console/dead-letters/replay", "/console/dead-letters/drop"]
BUTTONS = ["/console/dead-letters/replay", "/console/dead-letters/drop", "/console/failures/retry"]


def form_of(page: Any, path: str) -> dict[str, str]:
    """The fields of the page's form behind the button for all of them."""
    for form in re.findall(rf'<form method="post" action="{path}".*?</form>', page.text, re.DOTALL):
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form))
        if "all" in fields:
            return fields
    raise AssertionError(page.text)


def token_of(answer: Any) -> str:
    found = TOKEN.search(answer.text)
    assert found, answer.text
    return found[1]


def note_letters(engine: Engine, count: int, reason: str = "invalid-text", topic: str = "t") -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, value, value_bytes)
                SELECT :topic, 0, place, 5, :reason, 'd', 'v', 1 FROM generate_series(1, :count) AS place
            """),
            {"topic": topic, "reason": reason, "count": count},
        )


def states(engine: Engine) -> dict[str, int]:
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT state, count(*) FROM dead_letters GROUP BY state"))
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def browser(settings: Settings, database: Engine) -> Iterator[FlaskClient]:
    app = create_app("search", replace(settings, kafka_port=1, redis_url="redis://127.0.0.1:1/0"))
    yield app.test_client()
    app.extensions["parts"].close()


@pytest.mark.parametrize("path", BUTTONS)
@pytest.mark.parametrize(
    "change",
    [
        "no token",
        "wrong token",
        "no cookie",
        "another cookie's token",
        "other site",
        "same site",
        "other origin",
        "null",
        "no origin",
    ],
)
def test_a_form_of_another_site_is_refused(browser: FlaskClient, database: Engine, path: str, change: str) -> None:
    note_letters(database, 1)
    page = browser.get("/console/dead-letters")
    form = {"all": "yes", "token": token_of(page)}
    headers = {}
    if change == "no token":
        del form["token"]
    elif change == "wrong token":
        form["token"] = "0" * 64
    elif change == "no cookie":
        browser.delete_cookie(safety.COOKIE)
    elif change == "another cookie's token":
        browser.set_cookie(safety.COOKIE, "a" * 43)
    elif change in ("other site", "same site"):  # the same site on another port is another program
        headers["Sec-Fetch-Site"] = {"other site": "cross-site", "same site": "same-site"}[change]
    else:
        headers["Origin"] = {"null": "null", "no origin": "http://["}.get(change, "http://localhost:1")
    answer = browser.post(path, data=form, headers=headers)
    assert answer.status_code == 403
    assert states(database) == {"open": 1}


@pytest.mark.parametrize("path", QUESTIONS)
def test_the_address_of_a_question_leads_to_the_console(browser: FlaskClient, path: str) -> None:
    answer = browser.get(path, headers=BROWSER)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_our_own_form_passes_and_says_that_redis_is_away(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 1)
    form = {"all": "yes", "sure": "yes", "token": token_of(browser.get("/console/dead-letters"))}
    for headers in ({}, {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}):
        answer = browser.post("/console/dead-letters/drop", data=form, headers=headers)
        assert answer.status_code == 503
        assert "Redis does not answer" in answer.text


@pytest.mark.parametrize(
    ("path", "form", "question"),
    [
        ("drop", {"letter": "t:0:1200"}, "Drop t:0:1200? It leaves this list for good."),
        ("drop", {}, "Drop 1,200 dead letters with the reason invalid-text? They leave this list for good."),
        ("replay", {}, "Send 1,200 dead letters with the reason invalid-text to Kafka again?"),
    ],
)
def test_without_scripts_the_question_is_a_page_of_its_own(
    browser: FlaskClient, database: Engine, path: str, form: dict[str, str], question: str
) -> None:
    """Also before htmx is loaded. Redis is away: what is sent in spite of it says so."""
    note_letters(database, 1_200)
    address = f"/console/dead-letters/{path}"
    shown = browser.get("/console/dead-letters?reason=invalid-text")
    given = {**form, "token": token_of(shown)} if form else form_of(shown, address)
    assert f'hx-confirm="{question}"' in shown.text
    asked = browser.post(address, data=given)
    assert asked.status_code == 200
    assert f"<p>{question}</p>" in asked.text
    fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', asked.text))
    assert fields == {**given, "sure": "yes"}
    for sure in (browser.post(address, data=fields), browser.post(address, data=given, headers={"HX-Request": "true"})):
        assert (sure.status_code, "Redis does not answer" in sure.text) == (503, True)


def test_one_letter_is_replayed_without_a_question(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 1)
    form = {"letter": "t:0:1", "token": token_of(browser.get("/console/dead-letters"))}
    assert browser.post("/console/dead-letters/replay", data=form).status_code == 503


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 1)
    cookie = browser.get("/console/dead-letters").headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie, "who follows a link from another site keeps the token of the tabs that are open"
    assert "Set-Cookie" not in browser.get("/console/dead-letters").headers


@pytest.mark.parametrize(
    "form",
    [{}, {"letter": "x"}, {"letter": "a:b:c"}, {"letter": f"t:0:{'9' * 30}"}, {"all": "yes", "reason": "A'--"}],
)
def test_a_form_that_names_nothing_is_refused(browser: FlaskClient, database: Engine, form: dict[str, str]) -> None:
    note_letters(database, 1)
    token = token_of(browser.get("/console/dead-letters"))
    assert browser.post("/console/dead-letters/drop", data={**form, "token": token}).status_code == 400


@pytest.mark.parametrize("path", BUTTONS)
@pytest.mark.parametrize(
    "until", ["", "infinity", "2026-13-01T00:00:00+00:00", "2026-01-01T00:00:00", "٢٠٢٦-01-01T00:00:00+00:00"]
)
def test_a_form_with_a_time_that_no_page_has_is_refused(
    browser: FlaskClient, database: Engine, path: str, until: str
) -> None:
    note_letters(database, 1)
    token = token_of(browser.get("/console/dead-letters"))
    answer = browser.post(path, data={"all": "yes", "until": until, "token": token})
    assert answer.status_code == 400
    assert "load it again" in answer.text


def test_a_form_with_a_topic_that_no_letter_has_is_refused(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 1)
    token = token_of(browser.get("/console/dead-letters"))
    answer = browser.post("/console/dead-letters/drop", data={"letter": "a\0b:0:0", "token": token})
    assert answer.status_code == 400


def test_what_the_search_box_takes_fits_into_a_request_line(browser: FlaskClient) -> None:
    longest = re.search(r'<input id="q"[^>]* maxlength="(\d+)"', browser.get("/").text)
    assert longest
    line = f"GET /console/search?q={'%F0%9F%98%80' * int(longest[1])}&mode=semantic HTTP/1.1\r\n"
    assert len(line) <= 8190, "limit_request_line of gunicorn.conf.py"


@pytest.mark.parametrize("action", [str(uuid.UUID(int=5)), "x", "../../status", "\0"])
def test_the_page_after_a_button_says_what_came_of_it(browser: FlaskClient, action: str) -> None:
    """Without scripts nothing would say it later."""
    page = browser.get("/", query_string={"action": action})
    assert page.status_code == 200
    said = re.search(r'<p id="said"[^>]*>(.*?)</p>', page.text, re.DOTALL)
    assert said
    assert ("Redis does not answer" in said[1]) == (len(action) == 36)
    assert said[1] == "" or "Look again" in said[1]


def test_pages_allow_scripts_and_styles_of_their_own_only(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 1)
    for path in ("/", "/console/live", "/console/dead-letters", "/console/failures", "/console/search?q=a"):
        answer = browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|style=|javascript:|https?://", answer.text), path


def test_dead_letters_page_by_page(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 23, "invalid-id")
    note_letters(database, 2, "rejected", topic="u")
    seen: list[str] = []
    path = "/console/dead-letters?reason=invalid-id"
    while path:
        page = browser.get(path, headers={"HX-Request": "true"})
        assert page.status_code == 200
        assert "<html" not in page.text
        seen += re.findall(r'id="letter-(t-0-\d+)"', page.text)
        older = re.search(r'<a href="([^"]+)"[^>]*>Older</a>', page.text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert len(seen) == len(set(seen)) == 23
    assert "<html" in browser.get("/console/dead-letters").text
    assert browser.get("/console/dead-letters?cursor=x").status_code == 400
    assert browser.get("/console/dead-letters/t/0/999").status_code == 404


@pytest.mark.parametrize(
    ("path", "status", "told"),
    [
        ("/console/dead-letters?cursor=x", 400, "is no place in this list"),
        ("/console/dead-letters/t/0/999", 404, "there is no dead letter t:0:999"),
        ("/console/dead-letters/%3Cb%3E/0/1", 404, "no dead letter &lt;b&gt;:0:1"),
    ],
)
def test_a_problem_is_a_page_for_whoever_follows_a_link(
    browser: FlaskClient, path: str, status: int, told: str
) -> None:
    page = browser.get(path, headers=BROWSER)
    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert told in page.text
    assert "Back to the console" in page.text
    assert page.headers["Content-Security-Policy"] == safety.POLICY
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}, {**BROWSER, "HX-Request": "true"}):
        assert browser.get(path, headers=headers).mimetype == "application/problem+json"


def test_a_button_without_scripts_says_what_is_away_on_a_page() -> None:
    app = create_app("search", AWAY)
    client = app.test_client()
    page = client.get("/console/failures", headers=BROWSER)
    assert (page.status_code, page.mimetype) == (503, "text/html")
    assert "the database does not answer" in page.text
    assert page.headers["Retry-After"]
    refused = client.post("/console/failures/retry", data={"all": "yes"}, headers=BROWSER)
    assert (refused.status_code, refused.mimetype) == (403, "text/html")
    assert "load it again" in refused.text
    app.extensions["parts"].close()


def cursor_of(*place: object) -> str:
    return cursors.write(*place)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/console/dead-letters?reason=%00", 400),
        ("/console/dead-letters/a%00b/0/0", 404),
        (f"/console/dead-letters?cursor={cursor_of('2025-01-01', chr(0), 1, 2)}", 400),
        (f"/console/dead-letters?cursor={cursor_of('2025-01-01', chr(0xD800), 1, 2)}", 400),
        (f"/console/failures?cursor={cursor_of('2025-01-01', chr(0))}", 400),
        (f"/console/failures?cursor={base64.b64encode(b'[' * 5_000).decode()}", 400),
    ],
)
def test_what_no_query_can_carry_is_not_asked(browser: FlaskClient, path: str, status: int) -> None:
    assert browser.get(path).status_code == status


def test_pieces_of_a_reason_reach_each_letter_once(settings: Settings, database: Engine) -> None:
    note_letters(database, 7)
    note_letters(database, 2, "rejected", topic="a topic")
    with database.begin() as connection:
        until = console_commands.now(connection)
    note_letters(database, 1, topic="later")
    seen: list[tuple[str, int]] = []
    cursor: str | None = None
    with database.begin() as connection:
        while True:
            rows, cursor = dead_letter_queries.open_until(connection, reason=None, until=until, cursor=cursor, limit=3)
            seen += [(row["topic"], row["offset"]) for row in rows]
            if cursor is None:
                break
    assert sorted(seen) == [("a topic", 1), ("a topic", 2), *(("t", place) for place in range(1, 8))]
    with database.begin() as connection:
        assert dead_letters.drop(connection, reason="rejected", until=until, limit=5) == 2
        assert dead_letters.drop(connection, reason=None, until=until, limit=5) == 5
        assert dead_letters.drop(connection, reason=None, until=until, limit=5) == 2
    assert states(database) == {"open": 1, "dropped": 9}


def test_with_every_part_away_the_page_comes_and_says_so() -> None:
    app = create_app("search", AWAY)
    client = app.test_client()

    def told() -> bool:
        began = time.monotonic()
        page = client.get("/").text
        assert time.monotonic() - began < 10
        return all(f"{part} does not answer" in page for part in ("PostgreSQL", "Kafka", "Redis"))

    eventually(told)
    page = client.get("/").text
    assert "PostgreSQL and Kafka and Redis are away" in page
    assert "No open dead letters" not in page
    assert "Not known." in page
    app.extensions["parts"].close()


@contextmanager
def paused(part: Running) -> Iterator[None]:
    part.pause()
    try:
        yield
    finally:
        part.resume()


@contextmanager
def locked(engine: Engine) -> Iterator[None]:
    """PostgreSQL takes connections and questions, and answers none about these tables."""
    with engine.begin() as connection:
        connection.execute(text("LOCK TABLE text_messages, dead_letters, embedding_jobs IN ACCESS EXCLUSIVE MODE"))
        yield


@pytest.mark.parametrize("named", ["PostgreSQL", "Kafka", "Redis"])
def test_a_part_that_hangs_does_not_hang_the_page(
    settings: Settings, start: Callable[..., Running], database: Engine, kafka: Running, valkey: Running, named: str
) -> None:
    start("search-api")
    url = f"http://127.0.0.1:{settings.search_api_port}"
    eventually(lambda: "is away" not in requests.get(url, timeout=10).text)
    with {"PostgreSQL": locked(database), "Kafka": paused(kafka), "Redis": paused(valkey)}[named]:
        eventually(lambda: f"{named} is away" in requests.get(url, timeout=10).text, timeout=30)
        assert requests.get(f"{url}/?action={uuid.uuid4()}", timeout=10).elapsed.total_seconds() < 3
        with ThreadPoolExecutor(12) as tabs:
            answers = list(tabs.map(lambda _: requests.get(f"{url}/console/live", timeout=10), range(48)))
        assert {answer.status_code for answer in answers} == {200}
    eventually(lambda: "is away" not in requests.get(url, timeout=10).text, timeout=60)


def test_with_api_keys_the_console_asks_once(settings: Settings, database: Engine) -> None:
    app = create_app("search", replace(settings, api_keys="alpha"))
    client = app.test_client()
    page = client.get("/", headers=BROWSER)
    assert page.status_code == 401
    assert "API key" in page.text
    for path in ("/console/live", "/console/dead-letters", "/console/failures", "/console/search?q=a"):
        assert client.get(path).status_code == 401
    for path in BUTTONS:
        assert client.post(path, data={"all": "yes"}).status_code == 401
    style = client.get("/console/static/console.css")
    assert style.status_code == 200
    style.close()
    assert client.post("/session", data={"key": "alpha", "then": "/"}).status_code == 303
    signed_in = client.get("/", headers=BROWSER)
    assert signed_in.status_code == 200
    assert "Sign out" in signed_in.text
    assert "alpha" not in signed_in.text
    assert client.get_cookie(auth.cookie_name("alpha")) is not None
    app.extensions["parts"].close()


def test_words_are_found_whatever_their_form(database: Engine) -> None:
    with database.connect() as connection:
        words = {"Cats", "cat", "dog", "the", "caterpillar", "script"}
        assert console_queries.words_of_query(connection, "the cat -dog", words, "english") == {"Cats", "cat", "dog"}


@pytest.mark.parametrize("cursor", ["x", "W10=", "WzFd", "", "WyJhIiwgImIiXQ=="])
def test_a_cursor_that_nobody_made_is_refused(cursor: str) -> None:
    with pytest.raises(cursors.InvalidCursor):
        cursors.read(cursor, str, str, int, int)


def note_failures(engine: Engine, count: int) -> list[str]:
    """Messages whose embedding has failed; their ids."""
    ids = [str(uuid.uuid4()) for _ in range(count)]
    with engine.begin() as connection:
        for each in ids:
            connection.execute(text("INSERT INTO text_messages (id, message) VALUES (:id, 'm')"), {"id": each})
        connection.execute(text("DELETE FROM embedding_jobs"))
        connection.execute(
            text("""
                INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
                SELECT id, content_hash, 'm', 'r', 1 FROM text_messages WHERE id = ANY (:ids ::uuid[])
            """),
            {"ids": ids},
        )
    return ids


def failures_of(connection: Connection, cursor: str | None = None) -> tuple[list[str], str | None]:
    page = console_queries.failure_page(connection, limit=10, cursor=cursor)
    return [row["id"] for row in page["failures"]], page["next"]


def test_a_page_of_failures_looks_up_no_other_messages(database: Engine) -> None:
    ids = sorted(note_failures(database, 500), reverse=True)
    counted = text("SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'text_messages'")
    with database.begin() as connection:
        before = connection.execute(counted).scalar_one()
        shown, following = failures_of(connection)
        assert shown == ids[:10]
        assert connection.execute(counted).scalar_one() == before + 11
        assert failures_of(connection, following)[0] == ids[10:20]


def test_the_failure_of_a_message_that_is_gone_ends_no_page(database: Engine) -> None:
    """Of one that is deleted while it is embedded."""
    ids = sorted(note_failures(database, 12), reverse=True)
    run(
        database,
        "UPDATE embedding_failures SET message_id = :other WHERE message_id = :id",
        id=ids[0],
        other=str(uuid.UUID(int=2**128 - 1)),
    )
    with database.begin() as connection:
        shown, following = failures_of(connection)
        assert shown + failures_of(connection, following)[0] == ids[1:]


def test_retrying_reaches_those_that_failed_until_then(database: Engine) -> None:
    ids = note_failures(database, 3)
    with database.begin() as connection:
        until = console_commands.now(connection)
        assert console_commands.retry_failures(connection, [ids[0]], until=until, limit=10) == 1
        assert console_commands.retry_failures(connection, None, until="2000-01-01", limit=10) == 0
        assert console_commands.retry_failures(connection, None, until=until, limit=10) == 2
        queued = connection.execute(text("SELECT sum(cardinality(message_ids)) FROM embedding_jobs")).scalar_one()
    assert queued == 3


def test_replaying_takes_the_record_from_the_log_where_the_table_has_a_part(pipeline: Pipeline) -> None:
    """80 KB of an invalid record: more than the table keeps, so the bytes must come from Kafka."""
    browser = requests.Session()
    sent = pipeline.produce(b'{"text": 3, "padding": "' + b"x" * 80_000 + b'"}', headers=[("trace", b"abc")])
    name = f"{pipeline.settings.kafka_topic}:{sent.partition}:{sent.offset}"
    path = f"{pipeline.search_api}/console/dead-letters/{name.replace(':', '/')}"
    eventually(lambda: browser.get(path, timeout=10).status_code == 200)
    assert "of which the first" in browser.get(path, timeout=10).text
    page = browser.get(f"{pipeline.search_api}/console/dead-letters", timeout=10)
    begun = browser.post(
        f"{pipeline.search_api}/console/dead-letters/replay",
        data={"letter": name, "token": token_of(page)},
        headers={"HX-Request": "true"},
        timeout=10,
    )
    assert begun.status_code == 200
    action = re.search(r"/console/actions/[0-9a-f-]+", begun.text)
    assert action, begun.text

    def done() -> bool:
        return "1 record sent again" in browser.get(f"{pipeline.search_api}{action[0]}", timeout=10).text

    eventually(done, timeout=30)


@pytest.mark.parametrize("reason", ["", "invalid-text"])
def test_all_of_them_are_those_that_the_page_has_shown(
    settings: Settings, database: Engine, start: Callable[..., Running], reason: str
) -> None:
    """What comes between the page and the worker is not dropped unseen, nor retried."""
    app = create_app("search", settings)
    client = app.test_client()
    note_letters(database, 3)
    note_failures(database, 11)
    letters, failures = client.get(f"/console/dead-letters?reason={reason}"), client.get("/console/failures")
    note_letters(database, 4, topic="later")
    note_failures(database, 2)

    def press(page: Any, path: str) -> str:
        begun = client.post(path, data=form_of(page, path), headers={"HX-Request": "true"})
        action = re.search(r"/console/actions/[0-9a-f-]+", begun.text)
        assert action, begun.text
        return action[0]

    dropping, retrying = press(letters, "/console/dead-letters/drop"), press(failures, "/console/failures/retry")
    start("persist-worker")
    eventually(lambda: "3 dead letters dropped." in client.get(dropping).text, timeout=30)
    eventually(lambda: "11 messages are queued" in client.get(retrying).text, timeout=30)
    assert states(database) == {"dropped": 3, "open": 4}
    app.extensions["parts"].close()


def test_each_page_of_a_list_means_all_of_the_list(browser: FlaskClient, database: Engine) -> None:
    note_letters(database, 11)
    note_failures(database, 11)
    for path, button in (("/console/dead-letters", BUTTONS[0]), ("/console/failures", BUTTONS[2])):
        newest = browser.get(path)
        older = re.search(r'<a href="([^"]+)"[^>]*>Older</a>', newest.text)
        assert older, newest.text
        until = form_of(newest, button)["until"]
        assert form_of(browser.get(older[1].replace("&amp;", "&")), button)["until"] == until
    assert "Drop all" not in browser.get("/console/dead-letters?reason=rejected").text, "there is none"


def test_what_takes_many_pieces_is_done_whole_and_told_as_one(
    settings: Settings, database: Engine, start: Callable[..., Running]
) -> None:
    """More than a task does at once (WRITE_PIECE, REPLAY_PIECE): it sends itself again under its own id."""
    start("persist-worker")
    note_letters(database, 5_500, "invalid-id")
    note_letters(database, 250, "invalid-text", topic=settings.kafka_topic)
    app = create_app("search", settings)
    client = app.test_client()

    def press(path: str, reason: str) -> str:
        form = {"all": "yes", "reason": reason, "token": token_of(client.get("/console/dead-letters"))}
        begun = client.post(path, data=form, headers={"HX-Request": "true"})
        assert begun.status_code == 200, begun.text
        action = re.search(r"/console/actions/[0-9a-f-]+", begun.text)
        assert action, begun.text
        return action[0]

    dropping = press("/console/dead-letters/drop", "invalid-id")
    eventually(lambda: "5,500 dead letters dropped." in client.get(dropping).text, timeout=60)
    assert states(database) == {"dropped": 5_500, "open": 250}
    replaying = press("/console/dead-letters/replay", "invalid-text")
    eventually(lambda: "250 records sent again" in client.get(replaying).text, timeout=60)
    consumer = KafkaConsumer(
        settings.kafka_topic, **settings.kafka_client(), auto_offset_reset="earliest", consumer_timeout_ms=5_000
    )
    offsets = [int(dict(record.headers)["dead-letter-offset"]) for record in itertools.islice(consumer, 250)]
    consumer.close()
    assert sorted(offsets) == list(range(1, 251))
    app.extensions["parts"].close()
