"""The console's pages and pieces of pages. What is always shown comes from what was observed; what somebody asks for (a
search, a page of a list, a record) is read then."""

import re
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any

from celery import Celery
from flask import Blueprint, Response, render_template, request, url_for
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

import task_names
from api import auth, incoming, search
from api.console import actions, safety, shown, state
from api.observed import LISTED, Observed
from api.pages import html
from api.parts import Parts
from api.problems import Problem, from_database
from api.schemas import MAX_WORDS_CHARS, SearchRequest
from db import console_queries, cursors, dead_letter_queries

MODES = {"semantic": "by meaning", "keyword": "by words", "hybrid": "both"}
HITS = 10
SECONDS = NUMBER = re.compile(r"[0-9]{1,12}")
CHOICE = ("letter", "all", "reason", "until", "number")  # fields of the forms that are asked about
REASON = re.compile(r"[a-z-]{1,40}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}([.][0-9]{1,6})?[+]00:00")


def blueprint(parts: Parts, observed: Observed) -> Blueprint:
    console = Blueprint(
        "console", __name__, template_folder="templates", static_folder="static", static_url_path="/console/static"
    )
    console.after_request(hardened)
    sender = actions.connect(parts.settings)

    @console.record_once
    def prepare(setup: Any) -> None:
        setup.app.jinja_env.filters.update(shown.FILTERS)
        setup.app.jinja_env.trim_blocks = setup.app.jinja_env.lstrip_blocks = True

    @console.before_request
    def take_form() -> None:
        if request.method == "POST":
            incoming.take_form(request, parts.settings.max_body_bytes)

    @console.app_context_processor
    def common() -> dict[str, Any]:
        return {"token": safety.token, "token_field": safety.FIELD}

    page_routes(console, parts, observed, sender)
    list_routes(console, parts)
    action_routes(console, sender)
    return console


def page_routes(console: Blueprint, parts: Parts, observed: Observed, sender: Celery) -> None:
    """The page, what of it is renewed all the time, and the hits of a search."""

    @console.get("/")
    def page() -> Response:
        asked = request.args.get("q", "")
        seen = state.everything(observed)
        return html(
            render_template(
                "console/page.html",
                **seen,
                **found(parts, asked),
                modes=MODES,
                max_words=MAX_WORDS_CHARS,
                signed_in=auth.is_signed_in(parts.settings),
                **action_of(sender, request.args.get("action", ""), seen["problems"]),
            )
        )

    @console.get("/console/live")
    def live() -> Response:
        return html(render_template("console/live.html", **state.everything(observed), oob=True))

    @console.get("/console/search")
    def search_results() -> Response:
        asked, mode = request.args.get("q", ""), request.args.get("mode", "semantic")
        answer = html(render_template("console/results.html", **found(parts, asked), oob=True))
        answer.headers["HX-Push-Url"] = url_for("console.page", q=asked or None, mode=mode if asked else None)
        return answer


def list_routes(console: Blueprint, parts: Parts) -> None:
    """Dead letters, page by page and one by one, and failed embeddings."""

    @console.get("/console/dead-letters")
    def letters() -> Response:
        reason, cursor = request.args.get("reason") or None, request.args.get("cursor") or None
        if reason is not None and not cursors.can_be_asked(reason):
            raise Problem(400, f"{reason[:100]!r} is no reason")

        def read(connection: Any) -> dict[str, Any]:
            return {
                "known": True,
                "letter_counts": dead_letter_queries.counts(connection),
                "letters": dead_letter_queries.page(connection, limit=LISTED, reason=reason, cursor=cursor),
            }

        found = from_reader(parts, read)
        return piece("letters", "Dead letters", reason=reason, cursor=cursor, **found)

    @console.get("/console/dead-letters/<topic>/<int:partition>/<int:offset>")
    def letter(topic: str, partition: int, offset: int) -> Response:
        def read(connection: Any) -> Any:
            return dead_letter_queries.one(connection, topic, partition, offset)

        row = from_reader(parts, read) if cursors.can_be_asked(topic) else None
        if row is None:
            raise Problem(404, f"there is no dead letter {topic}:{partition}:{offset}")
        name = f"Dead letter {topic}:{partition}:{offset}"
        return piece("letter", name, letter=row, record_chars=shown.RECORD_CHARS)

    @console.get("/console/failures")
    def failures() -> Response:
        cursor = request.args.get("cursor") or None
        found = from_reader(
            parts, lambda connection: console_queries.failure_page(connection, limit=LISTED, cursor=cursor)
        )
        return piece("failures", "Failed embeddings", known=True, failures=found, cursor_of_failures=cursor)


def action_routes(console: Blueprint, sender: Celery) -> None:
    """What the buttons do, and how far it has come."""

    @console.post("/console/dead-letters/replay")
    def replay() -> Response:
        safety.check()
        chosen = chosen_letters()
        if "keys" not in chosen and not is_sure():
            return ask_first("replay", "Replay dead letters")
        return begun(sender, task_names.REPLAY_DEAD_LETTERS, chosen)

    @console.post("/console/dead-letters/drop")
    def drop() -> Response:
        safety.check()
        chosen = chosen_letters()
        if not is_sure():
            return ask_first("drop", "Drop dead letters")
        return begun(sender, task_names.DROP_DEAD_LETTERS, chosen)

    @console.get("/console/dead-letters/replay")
    @console.get("/console/dead-letters/drop")
    @console.get("/console/failures/retry")
    def asked_before() -> Response:
        """The address of a question, or of a button after the end of a session, opened once more."""
        return Response(status=303, headers={"Location": url_for("console.page")})

    @console.post("/console/failures/retry")
    def retry() -> Response:
        safety.check()
        return begun(sender, task_names.RETRY_FAILURES, chosen_failures())

    @console.get("/console/actions/<uuid:action>")
    def action_state(action: uuid.UUID) -> Response:
        since = request.args.get("since", "")
        known = actions.look(sender, str(action), int(since) if SECONDS.fullmatch(since) else None)
        answer = html(render_template("console/action.html", action=known, id=str(action)))
        if known.done:
            answer.headers["HX-Trigger"] = "lists-changed"
        return answer


def hardened(response: Response) -> Response:
    if request.endpoint != "console.static":
        return safety.harden(readable(response))
    response.headers["Cache-Control"] = "public, max-age=3600" if "vendor/" in request.path else "no-cache"
    return response


def readable(response: Response) -> Response:
    """A problem as a page, for a browser that follows the console's links and buttons by itself. Scripts take the
    document as it is."""
    wanted = request.accept_mimetypes.best_match(["application/json", "text/html"])
    if response.mimetype != "application/problem+json" or "HX-Request" in request.headers or wanted != "text/html":
        return response
    problem = response.get_json()
    response.set_data(piece("problem", problem["title"], detail=problem["detail"]).get_data())
    response.content_type = "text/html; charset=utf-8"
    return response


def piece(name: str, title: str, **shown_with: Any) -> Response:
    """A part of the page for htmx; for whoever follows its link, a page of its own."""
    alone = "HX-Request" not in request.headers
    template = "console/alone.html" if alone else f"console/{name}.html"
    return html(render_template(template, **shown_with, name=name, title=title))


def from_reader(parts: Parts, read: Callable[[Any], Any]) -> Any:
    """What is read from the database. Raises Problem."""
    try:
        with parts.reader.connect() as connection:
            return read(connection)
    except cursors.InvalidCursor as error:
        raise Problem(400, str(error)) from None
    except SQLAlchemyError as error:
        raise from_database(error) from None


def found(parts: Parts, asked: str) -> dict[str, Any]:
    """The hits of a search as the templates take them, or the problem; nothing if nothing was asked."""
    mode = request.args.get("mode", "semantic")
    shown_as: dict[str, Any] = {"asked": asked, "mode": mode, "found": None, "problem": None}
    if not asked.strip():
        return shown_as
    try:
        wanted = SearchRequest.model_validate({"query": asked, "mode": mode, "limit": HITS})
        answer = search.find(parts, wanted)
        hits = answer["results"]
        words = set().union(*(shown.words_in(hit["message"]) for hit in hits))
        language = parts.settings.keyword_language
        asked_for = from_reader(
            parts, lambda connection: console_queries.words_of_query(connection, asked, words, language)
        )
        for hit in hits:
            hit["pieces"] = shown.hit_text(hit["message"], hit["passage"], asked_for)
        shown_as["found"] = answer
    except ValidationError as error:
        shown_as["problem"] = incoming.from_validation(error)
    except SQLAlchemyError as error:
        shown_as["problem"] = from_database(error)
    except Problem as error:
        shown_as["problem"] = error
    return shown_as


def is_sure() -> bool:
    """Whether the user has confirmed: htmx asks before it sends; a page without scripts, or whose scripts are still on
    their way, cannot."""
    return "HX-Request" in request.headers or request.form.get("sure") == "yes"


def ask_first(does: str, title: str) -> Response:
    """The question as a page of its own. Its form is the one that came, with `sure` added."""
    fields = {name: request.form[name] for name in CHOICE if name in request.form}
    number = fields.get("number", "")
    return piece("sure", title, does=does, fields=fields, number=int(number) if NUMBER.fullmatch(number) else None)


def chosen_letters() -> dict[str, Any]:
    """The dead letters that a form names: one, or all of a reason. Raises Problem 400."""
    given = request.form.get("letter", "")
    if given:
        topic, _, rest = given.rpartition(":")[0].rpartition(":")
        numbers = (rest, given.rpartition(":")[2])
        known = topic and cursors.can_be_asked(topic)
        if not known or not all(number.isascii() and number.isdigit() and len(number) < 19 for number in numbers):
            raise Problem(400, f"{given[:100]!r} is no dead letter: expected TOPIC:PARTITION:OFFSET")
        return {"keys": [(topic, int(numbers[0]), int(numbers[1]))]}
    reason = request.form.get("reason", "")
    if request.form.get("all") != "yes" or not (reason == "" or REASON.fullmatch(reason)):
        raise Problem(400, "name a dead letter, or all of a reason")
    return {"why": reason or None, **shown_until()}


def chosen_failures() -> dict[str, Any]:
    """The messages that a form names: one, or all whose embedding failed. Raises Problem 400."""
    given = request.form.get("message", "")
    if given:
        try:
            return {"ids": [str(uuid.UUID(given))]}
        except ValueError:
            raise Problem(400, f"{given[:100]!r} is no message id") from None
    if request.form.get("all") != "yes":
        raise Problem(400, "name a message, or all")
    return shown_until()


def shown_until() -> dict[str, str]:
    """Up to when a form means "all": up to the newest that its page knew of, so that nothing is done to what nobody
    saw. If the form does not say, the worker decides. Raises Problem 400."""
    given = request.form.get("until")
    if given is None:
        return {}
    try:
        if TIME.fullmatch(given):
            datetime.fromisoformat(given)
            return {"until": given}
    except ValueError:  # such as a thirteenth month
        pass
    raise Problem(400, f"{given[:100]!r} is no time of a page of this console: load it again")


def action_of(sender: Celery, given: str, problems: list[dict[str, Any]]) -> dict[str, Any]:
    """The action that the page's address names, as the templates take it: without scripts nothing asks for it later."""
    try:
        action = str(uuid.UUID(given))
    except ValueError:
        return {"action": None}
    if any(each["part"] == "Redis" for each in problems):  # one that hangs must not hang the page
        return {"action": actions.unknown("Redis does not answer"), "id": action}
    return {"action": actions.look(sender, action), "id": action}


def begun(sender: Celery, name: str, choice: dict[str, Any]) -> Response:
    """Sends the task, and answers with its state: a piece for htmx, the whole page for a browser without scripts."""
    action = actions.begin(sender, name, choice)
    if "HX-Request" in request.headers:
        return html(render_template("console/action.html", action=actions.look(sender, action), id=action))
    return Response(status=303, headers={"Location": url_for("console.page", action=action)})
