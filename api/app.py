"""The application factory of both APIs. What a call does is in messages, search, trace and health; its route, here."""

from collections.abc import Callable
from typing import Any, get_args

from flask import Flask, Response, request
from werkzeug.routing import BaseConverter

from api import auth, console, health, incoming, messages, openapi, pages, problems, search, trace, waits
from api.answers import json_answer
from api.openapi import Operation
from api.parts import Parts, Role, assemble
from settings import Settings

TITLES = {"text": "Text API", "search": "Search API"}
DESCRIPTIONS = {
    "text": "Takes texts, by way of Kafka, and shows what is stored.",
    "search": "Finds the stored texts by meaning, by words, or both.",
}
OPERATIONS = {"text": [*messages.OPERATIONS, *trace.OPERATIONS], "search": search.OPERATIONS}


class MessageId(BaseConverter):
    """Any path, with slashes and line ends too: a source id may be any string."""

    regex = r"[\s\S]+"
    part_isolating = False


class Application(Flask):
    def make_default_options_response(self) -> Response:
        allowed = problems.methods_at(request.path) or super().make_default_options_response().allow
        return Response(status=204, headers={"Allow": ", ".join(sorted(allowed))})

    def log_exception(self, exc_info: Any) -> None:
        """Logs what goes wrong outside of a view, without the path, which Flask would name."""
        self.logger.error("%s failed", problems.this_call(), exc_info=exc_info)


def create_app(role: Role, settings: Settings) -> Flask:
    """The WSGI application of one API. Connects to nothing until it is used."""
    if role not in get_args(Role):
        raise ValueError(f"there is no API {role!r}: text or search")
    app = Application(__name__.partition(".")[0], static_url_path="/static")
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.url_map.converters["message_id"] = MessageId
    app.url_map.merge_slashes = False  # an id may have two of them
    app.url_map.strict_slashes = True
    app.url_map.redirect_defaults = False
    parts = assemble(role, settings)
    app.extensions["parts"] = parts
    operations = [*OPERATIONS[role], *health.OPERATIONS]
    document = openapi.document(TITLES[role], DESCRIPTIONS[role], operations, settings)

    problems.register(app, settings)
    parts.metrics.watch(app)
    auth.register(app, settings)
    app.before_request(lambda: incoming.check_path(request))
    for operation in operations:
        app.add_url_rule(
            operation.rule,
            endpoint=operation.view.__name__,
            view_func=view(operation, parts),
            methods=[operation.method],
        )
    app.add_url_rule("/openapi.json", "openapi", lambda: json_answer(document))
    pages.register(app, TITLES[role])
    if role == "search":
        console.register(app, parts)
    app.after_request(finished)
    return app


def view(operation: Operation, parts: Parts) -> Callable[..., Response]:
    """The operation as Flask calls it: its input is checked first."""

    def call(**path: str) -> Response:
        checked: dict[str, object] = dict(path)
        if operation.query is not None:
            checked["query"] = incoming.query(request, operation.query)
        if operation.body is not None:
            checked["body"] = incoming.body(request, operation.body, parts.settings)
        with waits.one_call(parts.settings.post_wait_seconds):
            return operation.view(parts, **checked)

    return call


def finished(response: Response) -> Response:
    """What every answer has in common: its request is read to the end, and these headers are set. A page says itself
    what it may load."""
    incoming.drain(request)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.setdefault("Content-Security-Policy", pages.PAGE_POLICY)
    return response
