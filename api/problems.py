"""Errors as the client sees them: RFC 9457 problem documents for everything, with a `detail` that says what to change.

A view raises Problem. What Flask, the database or a bug raises becomes one here; no stack trace gets out.
"""

import logging
from http import HTTPStatus

from flask import Flask, Response, current_app, request
from psycopg2 import Error
from sqlalchemy.exc import DataError, DBAPIError, SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, RequestEntityTooLarge

from api.answers import json_answer
from db import session
from db.session import first_line
from settings import Settings

log = logging.getLogger(__name__)

RETRY_SECONDS = 2  # what Retry-After says: the parts are checked every half second, and restart within seconds


class Problem(Exception):
    """An answer other than success: status, `detail`, further headers, and further members of the document."""

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **members: object) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers or {}
        self.members = members

    def answer(self) -> Response:
        document = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            **self.members,
        }
        return json_answer(document, self.status, headers=self.headers, content_type="application/problem+json")


class Unavailable(Problem):
    """503: a part that this call needs is away. Trying again later can help, and Retry-After says when."""

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(503, detail, headers={"Retry-After": str(RETRY_SECONDS)}, **members)


def from_http_exception(error: HTTPException, settings: Settings) -> Problem:
    """What Werkzeug and Flask raise themselves: no such path, wrong method, body too large, broken request."""
    headers: dict[str, str] = {}
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        allowed = ", ".join(sorted(methods_at(request.path) or error.valid_methods or ()))
        headers["Allow"] = allowed
        detail = f"{request.path} does not take {request.method}; it takes {allowed}"
    elif isinstance(error, RequestEntityTooLarge):
        detail = f"the body is over {settings.max_body_bytes} bytes (MAX_BODY_BYTES): send less at once"
    elif status == 404:
        detail = f"there is nothing at {request.path}; /docs lists the calls"
    else:
        detail = error.description or HTTPStatus(status).phrase
    return Problem(status, detail, headers=headers)


def methods_at(path: str) -> set[str]:
    """The methods of a call whose path has no id in it; empty for others. (`batch` in /messages/batch may be an id.)"""
    rules = (rule for rule in current_app.url_map.iter_rules() if rule.rule == path)
    return {method for rule in rules for method in rule.methods or ()}


def from_database(error: SQLAlchemyError) -> Problem:
    """503 for an outage; a value that PostgreSQL refuses is the request's fault; anything else is a bug."""
    reason = first_line(error)
    if session.was_canceled(error):
        log.warning("%s: %s", this_call(), reason)
        return Unavailable("the database took too long for this; ask for less, or try again in a moment")
    if session.is_outage(error):
        log.warning("%s: the database is away: %s", this_call(), reason)
        return Unavailable("the database does not answer; try again in a moment")
    if is_bad_value(error):
        log.warning("%s: %s", this_call(), reason)
        return Problem(400, f"the database refuses this value: {reason}")
    log.error("%s failed", this_call(), exc_info=error)
    return internal()


def this_call() -> str:
    """Method and route of the call under way, for logs and traces: its path may hold anybody's id."""
    return f"{request.method} {route()}"


def route() -> str:
    """The route of the call under way as the OpenAPI document has it, such as /messages/{id}; "unknown" without one."""
    return request.url_rule.rule.replace("<message_id:id>", "{id}") if request.url_rule else "unknown"


def is_bad_value(error: SQLAlchemyError) -> bool:
    """A value out of range, or a limit of the server (class 54, such as nesting too deep) that it goes beyond."""
    return isinstance(error, DataError) or pgcode(error).startswith("54")


def pgcode(error: SQLAlchemyError) -> str:
    return getattr(error.orig, "pgcode", None) or "" if isinstance(error, DBAPIError) else ""


def internal() -> Problem:
    return Problem(500, "something went wrong inside; the log of this API says what")


def register(app: Flask, settings: Settings) -> None:
    @app.errorhandler(Problem)
    def a_problem(error: Problem) -> Response:
        return error.answer()

    @app.errorhandler(HTTPException)
    def an_http_exception(error: HTTPException) -> Response:
        return from_http_exception(error, settings).answer()

    @app.errorhandler(SQLAlchemyError)
    def a_database_error(error: SQLAlchemyError) -> Response:
        return from_database(error).answer()

    @app.errorhandler(Error)
    def a_lost_connection(error: Error) -> Response:
        """psycopg2's own error, which SQLAlchemy lets through if a connection breaks on its way back to the pool."""
        if not session.is_outage(error):
            return a_bug(error)
        log.warning("%s: the database is away: %s", this_call(), first_line(error))
        return Unavailable("the database does not answer; try again in a moment").answer()

    @app.errorhandler(Exception)
    def a_bug(error: Exception) -> Response:
        log.error("%s failed", this_call(), exc_info=error)
        return internal().answer()
