"""The console in a real Chromium, on the running pipeline: what somebody sees, types and presses."""

import json
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from flask import render_template
from playwright.sync_api import BrowserContext, Page, Route, expect
from sqlalchemy import Engine, text

from api.app import create_app
from api.console.actions import Action
from api.console.state import facts
from db import session
from settings import Settings
from tests.browser.conftest import PATIENCE_MS, Watched
from tests.parts import eventually
from tests.pipeline import Pipeline

SCRIPT = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"


@pytest.fixture
def owner(pipeline: Pipeline) -> Engine:
    return session.connect_engine(pipeline.settings.database_url(), "test")


def state_of(pipeline: Pipeline, owner: Engine, partition: int, offset: int) -> str | None:
    with owner.connect() as connection:
        return connection.execute(
            text('SELECT state FROM dead_letters WHERE topic = :topic AND partition = :p AND "offset" = :o'),
            {"topic": pipeline.settings.kafka_topic, "p": partition, "o": offset},
        ).scalar_one_or_none()


def bury(pipeline: Pipeline, owner: Engine, value: bytes) -> tuple[str, int, int]:
    """Sends a record that cannot be stored, waits until it is noted, and returns its coordinates."""
    sent = pipeline.produce(value)
    eventually(lambda: state_of(pipeline, owner, sent.partition, sent.offset) == "open")
    return pipeline.settings.kafka_topic, sent.partition, sent.offset


def reload_until(page: Page, selector: str) -> None:
    def there() -> bool:
        page.reload()
        return page.locator(selector).count() > 0

    eventually(there, timeout=30, interval=0.5)


def test_new_messages_appear_by_themselves_and_become_searchable(console: Page, pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    message_id = pipeline.send(f"{word} came while the page was open")
    item = console.locator("#newest li", has_text=word)
    expect(item).to_be_visible(timeout=PATIENCE_MS)
    expect(item.get_by_text("searchable")).to_be_visible(timeout=PATIENCE_MS)
    expect(item).to_contain_text(message_id)
    expect(console.locator("#stages")).to_contain_text("a second")
    expect(console.locator("#processes")).to_contain_text("1 bridge")
    expect(console.locator("#partitions tbody tr")).to_have_count(pipeline.settings.kafka_topic_partitions)
    expect(console.locator("#health")).to_have_text("Up to date", timeout=PATIENCE_MS)


def test_the_chart_is_drawn_and_told_in_words(console: Page, pipeline: Pipeline) -> None:
    pipeline.wait_until_ready(pipeline.send("something to draw"))
    expect(console.locator("#chart canvas")).to_be_visible()
    name = console.locator("#chart").get_attribute("aria-labelledby") or ""
    assert name.split() == ["chart-caption", "history"]
    expect(console.locator("#history")).to_contain_text("read ")

    def drawn() -> bool:
        history = json.loads(console.locator("#history").get_attribute("data-history") or "{}")
        return all(sum(history[stage]) > 0 for stage in ("read", "stored", "embedded"))

    eventually(drawn, timeout=20)


@pytest.mark.parametrize(("locale", "form"), [("en-US", r"\d{1,2}:\d\d\s[AP]M"), ("de-DE", r"\d\d:\d\d")])
def test_the_chart_tells_the_time_as_the_rest_of_the_page_does(
    contexts: Callable[..., BrowserContext], pipeline: Pipeline, locale: str, form: str
) -> None:
    page = contexts(locale=locale).new_page()
    page.add_init_script("""
        window.drawn = [];
        const { fillText } = CanvasRenderingContext2D.prototype;
        CanvasRenderingContext2D.prototype.fillText = function (words, ...where) {
            window.drawn.push(words);
            return fillText.call(this, words, ...where);
        };
    """)
    page.goto(pipeline.search_api)
    page.wait_for_function("window.drawn.some((words) => words.includes(':'))")
    times = [words for words in page.evaluate("window.drawn") if ":" in words]
    assert all(re.fullmatch(form, words) for words in times)


def test_a_search_with_the_keyboard_alone(console: Page, pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    pipeline.wait_until_ready(pipeline.send(f"{word} how to brew tea\n\n" + "and then we wait. " * 400))
    console.keyboard.press("Tab")
    expect(console.locator(".skip")).to_be_focused()
    console.keyboard.press("Enter")
    for _ in range(3):
        if console.evaluate("document.activeElement.id") == "q":
            break
        console.keyboard.press("Tab")
    expect(console.locator("#q")).to_be_focused()
    console.keyboard.type(f"{word} tea")
    console.keyboard.press("Tab")
    console.keyboard.press("Tab")
    console.keyboard.press("ArrowRight")
    expect(console.get_by_role("radio", name="by words")).to_be_checked()
    console.keyboard.press("Enter")
    expect(console.locator("#found")).to_contain_text("1 hit in")
    marked = console.locator("#results mark b")
    assert word in marked.all_inner_texts()
    assert "mode=keyword" in console.url
    console.reload()
    expect(console.locator("#results .hits li")).to_have_count(1)
    expect(console.locator("#q")).to_have_value(f"{word} tea")


def test_the_passage_that_fits_is_marked_within_its_message(console: Page, pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    filler = "nothing of interest happens in this part of it. " * 60
    pipeline.wait_until_ready(pipeline.send(f"{filler}\n\nAt last {word} {word} {word} comes to light.\n\n{filler}"))
    console.get_by_label("What are you looking for?").fill(f"{word} {word} {word}")
    console.get_by_role("radio", name="both").check()
    console.get_by_role("button", name="Search").click()
    hit = console.locator("#results .hits li", has_text=word)
    expect(hit.locator("mark.passage").first).to_be_visible()
    assert word in hit.locator("mark b").all_inner_texts()
    expect(hit.locator(".around").first).to_be_visible()


def test_texts_are_shown_as_texts(watched: Watched, pipeline: Pipeline, owner: Engine) -> None:
    page = watched.page
    page.on("dialog", watched.unexpected_dialog)
    word = f"w{uuid.uuid4().hex}"
    pipeline.wait_until_ready(pipeline.send(f"{word} {SCRIPT} \u202edesrever", id=f"<b>{word}</b>"))
    key = bury(pipeline, owner, f"{{{SCRIPT} \u202edesrever\u0000".encode() + b"\xff")
    page.goto(f"{pipeline.search_api}/?q={word}&mode=keyword")
    for place in (page.locator("#newest li", has_text=word), page.locator("#results .hits li")):
        expect(place).to_contain_text("<script>document.title='owned'</script>")
        expect(place).to_contain_text(f"<b>{word}</b>")
    reload_until(page, f"#letter-{key[0]}-{key[1]}-{key[2]}")
    shown = page.locator(f"#letter-{key[0]}-{key[1]}-{key[2]}")
    expect(shown.locator(".record").first).to_contain_text("<script>")
    assert shown.locator(".record").first.locator(".hidden").all_inner_texts() == ["U+202E", "U+0000"]
    expect(shown.locator(".byte").first).to_have_text("\\xff")
    shown.get_by_text("Whole record").click()
    expect(shown.locator(".whole .record")).to_contain_text("<script>")
    assert page.title().endswith("Text pipeline")
    # What turns letters around ends with its own text: the id behind it stands as ever.
    directions = page.locator("#results .hits .text").evaluate("node => getComputedStyle(node).unicodeBidi")
    assert "isolate" in directions or "plaintext" in directions


def test_a_replayed_record_leaves_the_list_when_it_can_be_stored(
    console: Page, pipeline: Pipeline, owner: Engine
) -> None:
    """The letter is noted by hand for a record that is good, as after a limit that was raised."""
    sent = pipeline.produce({"id": str(uuid.uuid4()), "text": "good now"})
    key = note_by_hand(pipeline, owner, sent)
    reload_until(console, f"#letter-{key[0]}-{key[1]}-{key[2]}")
    console.get_by_role("button", name=f"Replay {key[0]}:{key[1]}:{key[2]}").click()
    expect(console.locator("#said")).to_contain_text("1 record sent again", timeout=PATIENCE_MS)
    expect(console.locator(f"#letter-{key[0]}-{key[1]}-{key[2]}")).to_have_count(0, timeout=PATIENCE_MS)
    assert state_of(pipeline, owner, key[1], key[2]) == "replayed"


def note_by_hand(pipeline: Pipeline, owner: Engine, sent: Any, reason: str = "rejected") -> tuple[str, int, int]:
    topic = pipeline.settings.kafka_topic
    partition, offset, timestamp = sent.partition, sent.offset, sent.timestamp
    with owner.begin() as connection:
        connection.execute(
            text("""
                INSERT INTO dead_letters (topic, partition, "offset", timestamp, reason, detail, value, value_bytes)
                VALUES (:topic, :p, :o, :t, :reason, 'by hand', 'cut', 1000)
            """),
            {"topic": topic, "p": partition, "o": offset, "t": timestamp, "reason": reason},
        )
    return topic, partition, offset


def test_one_is_dropped_and_then_all_of_its_reason(console: Page, pipeline: Pipeline, owner: Engine) -> None:
    reason = "invalid-id"
    keys = [bury(pipeline, owner, json.dumps({"id": number, "text": "t"}).encode()) for number in range(3)]
    reload_until(console, f"#letter-{keys[2][0]}-{keys[2][1]}-{keys[2][2]}")
    console.locator("#letters").get_by_role("link", name=reason).click()
    expect(console.get_by_role("button", name=f"Drop all with {reason}")).to_be_visible()

    first = keys[0]
    console.once("dialog", lambda dialog: dialog.dismiss())
    console.get_by_role("button", name=f"Drop {first[0]}:{first[1]}:{first[2]}").click()
    console.once("dialog", lambda dialog: dialog.accept())
    console.get_by_role("button", name=f"Drop {first[0]}:{first[1]}:{first[2]}").click()
    expect(console.locator("#said")).to_contain_text("1 dead letter dropped", timeout=PATIENCE_MS)
    expect(console.locator(f"#letter-{first[0]}-{first[1]}-{first[2]}")).to_have_count(0, timeout=PATIENCE_MS)
    assert [state_of(pipeline, owner, key[1], key[2]) for key in keys] == ["dropped", "open", "open"]

    console.once("dialog", lambda dialog: dialog.accept())
    console.get_by_role("button", name=f"Drop all with {reason}").click()
    expect(console.locator("#said")).to_contain_text("dead letters dropped", timeout=PATIENCE_MS)
    assert [state_of(pipeline, owner, key[1], key[2]) for key in keys] == ["dropped"] * 3


def test_all_of_a_reason_are_replayed_and_those_that_fail_again_stay(
    console: Page, pipeline: Pipeline, owner: Engine
) -> None:
    good = note_by_hand(
        pipeline, owner, pipeline.produce({"id": str(uuid.uuid4()), "text": "good now"}), "invalid-metadata"
    )
    bad = bury(pipeline, owner, json.dumps({"text": "t", "metadata": 3}).encode())
    reload_until(console, f"#letter-{bad[0]}-{bad[1]}-{bad[2]}")
    console.locator("#letters").get_by_role("link", name="invalid-metadata").click()
    console.once("dialog", lambda dialog: dialog.accept())
    console.get_by_role("button", name="Replay all with invalid-metadata").click()
    expect(console.locator("#said")).to_contain_text("sent again", timeout=PATIENCE_MS)
    expect(console.locator(f"#letter-{good[0]}-{good[1]}-{good[2]}")).to_have_count(0, timeout=PATIENCE_MS)
    expect(console.locator(f"#letter-{bad[0]}-{bad[1]}-{bad[2]}")).to_be_visible()
    assert state_of(pipeline, owner, good[1], good[2]) == "replayed"
    assert state_of(pipeline, owner, bad[1], bad[2]) == "open"


@pytest.mark.parametrize("which", ["Retry all", "Retry"])
def test_failed_embeddings_are_retried(console: Page, pipeline: Pipeline, owner: Engine, which: str) -> None:
    message = pipeline.wait_until_ready(pipeline.send("a text whose embedding is said to have failed"))
    with owner.begin() as connection:
        connection.execute(
            text("""
                WITH gone AS (DELETE FROM message_embeddings WHERE message_id = :id ::uuid)
                INSERT INTO embedding_failures (message_id, content_hash, model, reason, attempts)
                SELECT id, content_hash, 'hashing-384', 'the <b>model</b> said no', 5
                FROM text_messages WHERE id = :id ::uuid
            """),
            {"id": message["id"]},
        )
    reload_until(console, f"#failure-{message['id']}")
    failure = console.locator(f"#failure-{message['id']}")
    expect(failure).to_contain_text("the <b>model</b> said no")
    button = console.get_by_role("button", name="Retry all") if which == "Retry all" else failure.get_by_role("button")
    button.click()
    expect(console.locator("#said")).to_contain_text("queued to be embedded again", timeout=PATIENCE_MS)
    expect(failure).to_have_count(0, timeout=PATIENCE_MS)
    pipeline.wait_until_ready(message["id"])


def test_without_scripts_the_page_works_too(
    contexts: Callable[..., BrowserContext], pipeline: Pipeline, owner: Engine
) -> None:
    page = contexts(java_script_enabled=False).new_page()
    key = bury(pipeline, owner, b'{"text": ""}')
    page.goto(pipeline.search_api)
    reload_until(page, f"#letter-{key[0]}-{key[1]}-{key[2]}")
    page.get_by_role("button", name=f"Drop {key[0]}:{key[1]}:{key[2]}").click()
    expect(page.locator("main")).to_contain_text(f"Drop {key[0]}:{key[1]}:{key[2]}?")
    assert state_of(pipeline, owner, key[1], key[2]) == "open"
    page.get_by_role("button", name="Yes, drop").click()
    page.wait_for_url(lambda url: "action=" in url, timeout=PATIENCE_MS)  # and until it is loaded
    eventually(lambda: state_of(pipeline, owner, key[1], key[2]) == "dropped")
    reload_until(page, "#said >> text=1 dead letter dropped")
    page.get_by_label("What are you looking for?").fill("something")
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#found")).to_contain_text("in")


def test_a_server_that_is_silent_is_told(
    contexts: Callable[..., BrowserContext], pipeline: Pipeline, owner: Engine
) -> None:
    key = bury(pipeline, owner, b'{"text": 5}')
    word = f"w{uuid.uuid4().hex}"
    pipeline.wait_until_ready(pipeline.send(f"{word} is found"))
    page = contexts().new_page()
    page.goto(f"{pipeline.search_api}/?q={word}&mode=keyword")
    reload_until(page, f"#letter-{key[0]}-{key[1]}-{key[2]}")
    expect(page.locator("#results .hits li")).to_have_count(1)
    for path in ("**/console/search?*", "**/console/dead-letters/replay"):
        page.route(path, lambda _: None)  # no answer, for ever
    page.get_by_label("What are you looking for?").fill("another thing")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name=f"Replay {key[0]}:{key[1]}:{key[2]}").click()
    expect(page.locator("#said")).to_contain_text("No answer yet; it may still be done", timeout=PATIENCE_MS)
    expect(page.locator("#results")).to_have_text("The server does not answer; try again in a moment.")
    expect(page.locator("#found")).to_have_text("Not available right now.")
    page.unroute("**/console/search?*")
    page.get_by_label("What are you looking for?").fill(word)
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#results .hits li")).to_have_count(1)
    expect(page.locator("#results")).not_to_contain_text("does not answer")
    expect(page.locator("#found")).to_contain_text("1 hit in")


@pytest.mark.parametrize("width", [360, 960, 1000, 1280])
def test_an_index_that_is_built_can_be_read(console: Page, width: int) -> None:
    built = {"id": 5, "rows": 350_000, "phase": "building index: loading tuples", "progress": 0.41, "seconds": 104.5}
    parts = [{"id": 4, "rows": 700_000, "state": "ready"}]
    index = {"kind": "hnsw", "vectors": 1_200_345, "parts": parts, "building": built}
    status = {"model": "hashing-384", "dimensions": 384, "embedded": 1_200_345, "pending": 0, "index": index}
    with create_app("search", Settings()).test_request_context():
        card = render_template("console/index.html", index=status, facts=facts(status))
    console.set_viewport_size({"width": width, "height": 800})
    console.get_by_role("button", name="Pause updates").click()
    place = console.locator("#index")
    place.evaluate("(node, card) => { node.outerHTML = card; }", card)
    expect(place).to_contain_text("loading tuples")
    widths = place.evaluate("node => [...node.querySelectorAll('dd')].map(each => each.clientWidth)")
    assert min(widths) > 90
    assert place.evaluate("node => node.scrollWidth - node.clientWidth") <= 0


def test_updates_can_be_paused(console: Page, pipeline: Pipeline) -> None:
    asked: list[str] = []
    console.on("request", lambda request: asked.append(request.url))
    button = console.get_by_role("button", name="Pause updates")
    button.click()
    expect(button).to_have_attribute("aria-pressed", "true")
    asked.clear()
    console.wait_for_timeout(5_000)  # longer than two turns: nothing is the thing to see
    assert asked == []
    button.click()

    def asked_again() -> bool:
        console.wait_for_timeout(100)  # Playwright hears of requests only while it waits itself
        return any("/console/live" in url for url in asked)

    eventually(asked_again)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 360])
def test_axe_finds_nothing(
    contexts: Callable[..., BrowserContext], pipeline: Pipeline, owner: Engine, scheme: str, width: int
) -> None:
    bury(pipeline, owner, b"\xff bytes that are no text")
    pipeline.wait_until_ready(pipeline.send("a text to be found by its words"))
    page = contexts(color_scheme=scheme, viewport={"width": width, "height": 800}).new_page()
    page.goto(f"{pipeline.search_api}/?q=text&mode=hybrid")
    expect(page.locator("#chart canvas")).to_be_visible()
    reload_until(page, "#letters details")
    found = Axe().run(page).response["violations"]
    assert [(each["id"], [node["html"][:200] for node in each["nodes"][:3]]) for each in found] == []
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 0


@pytest.fixture
def visitor(contexts: Callable[..., BrowserContext], pipeline: Pipeline) -> Page:
    """The console in a browser whose requests may fail: what it says about them in its own console does not count."""
    page = contexts(viewport={"width": 1000, "height": 700}).new_page()
    page.goto(pipeline.search_api)
    return page


def a_letter(page: Page, pipeline: Pipeline, owner: Engine) -> str:
    """The name of a dead letter that can be stored now, and is on the page."""
    key = note_by_hand(pipeline, owner, pipeline.produce({"id": str(uuid.uuid4()), "text": "good now"}))
    reload_until(page, f"#letter-{key[0]}-{key[1]}-{key[2]}")
    return f"{key[0]}:{key[1]}:{key[2]}"


def fail(route: Route, failure: str) -> None:
    """As the network does ("aborted"), or a proxy with this status."""
    if failure == "aborted":
        route.abort("connectionreset")
    else:
        route.fulfill(status=int(failure), body="<html>a proxy</html>")


def test_what_came_of_a_button_is_asked_for_until_it_is_known(visitor: Page, pipeline: Pipeline, owner: Engine) -> None:
    name = a_letter(visitor, pipeline, owner)
    failures = iter(["aborted", "503", "503"])

    def fail_at_first(route: Route) -> None:
        failure = next(failures, None)
        if failure is None:
            route.continue_()
        else:
            fail(route, failure)

    visitor.route("**/console/actions/*", fail_at_first)
    visitor.get_by_role("button", name=f"Replay {name}").click()
    expect(visitor.locator("#said")).to_contain_text("1 record sent again", timeout=PATIENCE_MS)


@pytest.mark.parametrize("lost", ["aborted", "504"])
def test_a_button_whose_answer_is_lost_may_have_done_it(
    visitor: Page, pipeline: Pipeline, owner: Engine, lost: str
) -> None:
    name = a_letter(visitor, pipeline, owner)
    visitor.route("**/console/dead-letters/replay", lambda route: fail(route, lost))
    visitor.get_by_role("button", name=f"Replay {name}").click()
    expect(visitor.locator("#said")).to_contain_text("it may still be done. Look at the list")


def test_words_that_stay_the_same_are_said_once(visitor: Page, pipeline: Pipeline, owner: Engine) -> None:
    """A screen reader reads what is put into the page, also where it was there before."""
    name = a_letter(visitor, pipeline, owner)
    now = int(time.time())
    looks = [Action("Waiting", done=False, since=now + second) for second in (0, 0, 1, 2)]
    with create_app("search", Settings()).test_request_context():
        answers = iter(
            [
                render_template("console/action.html", action=look, id=str(uuid.UUID(int=1)))
                for look in [*looks, Action("Done", done=True)]
            ]
        )
    visitor.route("**/console/dead-letters/replay", lambda route: route.fulfill(body=next(answers)))
    visitor.route("**/console/actions/*", lambda route: route.fulfill(body=next(answers)))
    visitor.evaluate("""() => {
        window.heard = [];
        const hear = () => window.heard.push(document.getElementById("said").textContent);
        new MutationObserver(hear).observe(document.getElementById("said"),
            { childList: true, characterData: true, subtree: true });
    }""")
    visitor.get_by_role("button", name=f"Replay {name}").click()
    expect(visitor.locator("#said")).to_have_text("Done")
    assert visitor.evaluate("window.heard") == ["Waiting", "Done"]


ACTION = '<span class="action">It is done.</span>'


@pytest.mark.parametrize("width", [1000, 360])
def test_what_a_button_says_is_seen_and_the_keyboard_stays_on_it(
    visitor: Page, pipeline: Pipeline, owner: Engine, width: int
) -> None:
    name = a_letter(visitor, pipeline, owner)
    visitor.set_viewport_size({"width": width, "height": 700})
    visitor.route("**/console/dead-letters/replay", lambda route: route.fulfill(body=ACTION))
    button = visitor.get_by_role("button", name=f"Replay {name}")
    # At the top of the window, where the words are going to be.
    button.evaluate("node => { node.scrollIntoView({ block: 'start' }); node.focus(); }")
    visitor.keyboard.press("Enter")
    said = visitor.locator("#said")
    expect(said).to_have_text("It is done.")
    expect(said).to_be_in_viewport(ratio=1)
    expect(button).to_be_focused()

    def top(selector: str) -> float:
        return float(visitor.locator(selector).evaluate("node => node.getBoundingClientRect().top"))

    def is_clear() -> bool:
        button_top = button.evaluate("node => node.getBoundingClientRect().top")
        return bool(button_top >= said.evaluate("node => node.getBoundingClientRect().bottom"))

    eventually(is_clear)
    header = visitor.locator(".top").evaluate("node => node.getBoundingClientRect().bottom")
    assert top("#said") >= max(0, header) - 1


def test_the_keyboard_goes_to_the_heading_when_its_button_is_gone(
    visitor: Page, pipeline: Pipeline, owner: Engine
) -> None:
    name = a_letter(visitor, pipeline, owner)
    visitor.once("dialog", lambda dialog: dialog.accept())
    visitor.get_by_role("button", name=f"Drop {name}").focus()
    visitor.keyboard.press("Enter")
    expect(visitor.locator("#dead-letters")).to_be_focused(timeout=PATIENCE_MS)


def test_who_has_left_a_list_with_the_mouse_is_not_brought_back(
    visitor: Page, pipeline: Pipeline, owner: Engine
) -> None:
    a_letter(visitor, pipeline, owner)
    visitor.locator("#letters .record").first.click()
    visitor.locator(".top").click(position={"x": 3, "y": 3})
    visitor.evaluate("htmx.trigger(document.body, 'lists-changed')")
    visitor.wait_for_timeout(3_000)  # longer than a turn: nothing is the thing to see
    assert visitor.evaluate("document.activeElement === document.body")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (683, 384), (700, 900), (360, 700)])
def test_what_a_link_leads_to_is_not_below_the_header(visitor: Page, width: int, height: int) -> None:
    visitor.set_viewport_size({"width": width, "height": height})
    for link in ("Newest", "Dead letters"):
        visitor.locator(".top nav").get_by_role("link", name=link).click()
        place = str(visitor.locator(".top nav").get_by_role("link", name=link).get_attribute("href"))
        expect(visitor.locator(place)).to_be_in_viewport()
        bottom = visitor.locator(".top").evaluate("node => node.getBoundingClientRect().bottom")
        assert visitor.locator(place).evaluate("node => node.getBoundingClientRect().top") >= bottom


def test_title_and_mode_are_those_of_the_search_that_is_shown(visitor: Page, pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    pipeline.wait_until_ready(pipeline.send(f"{word} is found"))
    visitor.get_by_role("radio", name="by words").check()
    visitor.get_by_label("What are you looking for?").fill(word)
    visitor.get_by_role("button", name="Search").click()
    expect(visitor.locator("#found")).to_contain_text("1 hit in")
    expect(visitor).to_have_title(f"{word} – Text pipeline")
    visitor.get_by_role("radio", name="both").check()
    visitor.goto(f"{pipeline.search_api}/docs")
    visitor.go_back()
    expect(visitor.locator("#found")).to_contain_text("1 hit in")
    assert "mode=keyword" in visitor.url
    expect(visitor.get_by_role("radio", name="by words")).to_be_checked()
    visitor.get_by_label("What are you looking for?").fill("")
    visitor.get_by_role("button", name="Search").click()
    expect(visitor).to_have_title("Text pipeline")


def test_what_is_chosen_is_seen_in_forced_colors(
    contexts: Callable[..., BrowserContext], pipeline: Pipeline, owner: Engine
) -> None:
    bury(pipeline, owner, b'{"text": 7}')
    page = contexts(forced_colors="active").new_page()
    page.goto(pipeline.search_api)
    reload_until(page, "#letters .chips")
    page.get_by_role("button", name="Pause updates").click()
    page.locator("#q").focus()

    def color(selector: str) -> str:
        return str(page.locator(selector).first.evaluate("node => getComputedStyle(node).backgroundColor"))

    assert color(".chips a[aria-current]") != color(".chips a:not([aria-current])")
    page.mouse.move(0, 0)
    pressed = color("#pause")
    page.get_by_role("button", name="Pause updates").click()
    assert color("#pause") != pressed


def test_the_page_says_whose_times_it_shows(contexts: Callable[..., BrowserContext], pipeline: Pipeline) -> None:
    for scripts, zone in ((True, "Times are in your zone."), (False, "Times are in UTC.")):
        page = contexts(java_script_enabled=scripts).new_page()
        page.goto(pipeline.search_api)
        expect(page.locator("footer")).to_contain_text(zone)


def test_a_record_that_did_not_come_is_asked_for_again(visitor: Page, pipeline: Pipeline, owner: Engine) -> None:
    name = a_letter(visitor, pipeline, owner)
    address = f"**/console/dead-letters/{name.replace(':', '/')}"
    visitor.route(address, lambda route: route.abort("connectionreset"))
    letter = visitor.locator(f"#letter-{name.replace(':', '-')}")
    letter.get_by_text("Whole record").click()
    expect(visitor.locator("#said")).to_have_text("The server does not answer; try again in a moment.")
    visitor.unroute(address)
    letter.get_by_text("Whole record").click()
    letter.get_by_text("Whole record").click()
    expect(letter.locator(".whole .record")).to_be_visible()
    expect(visitor.locator("#said")).to_be_empty()
    asked: list[str] = []
    visitor.on("request", lambda request: asked.append(request.url))
    letter.get_by_text("Whole record").click()
    letter.get_by_text("Whole record").click()
    visitor.wait_for_timeout(500)
    assert [url for url in asked if name.replace(":", "/") in url] == [], "it is there"


def test_a_list_that_could_not_be_read_comes_when_it_can_be(visitor: Page, pipeline: Pipeline, owner: Engine) -> None:
    address = "**/console/dead-letters"
    visitor.route(address, lambda route: fail(route, "503"))
    key = bury(pipeline, owner, b'{"text": 9}')
    expect(visitor.locator("#said")).to_have_text("The server answers 503.")
    visitor.unroute(address)
    expect(visitor.locator(f"#letter-{key[0]}-{key[1]}-{key[2]}")).to_be_visible()
    expect(visitor.locator("#said")).to_be_empty()


def test_what_came_of_a_button_stays_though_a_list_cannot_be_read(
    visitor: Page, pipeline: Pipeline, owner: Engine
) -> None:
    name = a_letter(visitor, pipeline, owner)
    visitor.route("**/console/dead-letters", lambda route: fail(route, "503"))
    visitor.route("**/console/dead-letters/replay", lambda route: route.fulfill(body=ACTION))
    visitor.get_by_role("button", name=f"Replay {name}").click()
    expect(visitor.locator("#said")).to_have_text("It is done.")
    with visitor.expect_response(lambda answer: answer.status == 503, timeout=PATIENCE_MS):
        key = bury(pipeline, owner, b'{"text": 9}')
    expect(visitor.locator("#said")).to_have_text("It is done.")
    visitor.unroute("**/console/dead-letters")
    expect(visitor.locator(f"#letter-{key[0]}-{key[1]}-{key[2]}")).to_be_visible(timeout=PATIENCE_MS)
    expect(visitor.locator("#said")).to_have_text("It is done.")


def test_a_hit_of_many_lines_and_marks_keeps_to_its_place(visitor: Page, pipeline: Pipeline) -> None:
    word = f"w{uuid.uuid4().hex}"
    pipeline.wait_until_ready(pipeline.send(f"{word} " + "\n" * 300 + "e" + "\u0301" * 200))
    visitor.goto(f"{pipeline.search_api}/?q={word}&mode=keyword")
    text = visitor.locator("#results .hits .text")
    assert text.evaluate("node => node.offsetHeight") < 500
    assert text.evaluate("node => getComputedStyle(node).overflowY") == "auto"
    expect(text).to_have_attribute("tabindex", "0")
    text.focus()
    visitor.keyboard.press("End")
    eventually(lambda: text.evaluate("node => node.scrollTop") > 0)
