"""Reading a request: its JSON body and its query string, checked by their models. What is wrong there is a Problem."""

import time
from collections.abc import Mapping
from decimal import Decimal
from io import BytesIO
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

from flask import Request
from gunicorn.http.errors import ParseException
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import RequestEntityTooLarge

from api.problems import Problem
from api.schemas import MAX_BATCH, PATTERNS, Input
from bridge import message
from settings import Settings

Model = TypeVar("Model", bound=BaseModel)
Body = TypeVar("Body", bound=Input)

PART_BYTES = 1024 * 1024  # as much as gunicorn receives at once
DRAIN_BYTES = 128 * 1024 * 1024
DRAIN_SECONDS = 10.0

# A body that ends early, and one whose chunks are wrong.
UNREADABLE = (OSError, ParseException)
STALLED = BlockingIOError  # what the time-out of gunicorn.conf.py is

# Which member of a body a reason speaks of.
MEMBERS = {
    "missing-text": "message",
    "invalid-text": "message",
    "text-too-long": "message",
    "invalid-id": "id",
    "invalid-metadata": "metadata",
}


def body(request: Request, model: type[Body], settings: Settings) -> Body:
    """The checked JSON body. Raises Problem 400 or 415, and RequestEntityTooLarge for one over MAX_BODY_BYTES."""
    if request.mimetype != "application/json" or request.mimetype_params.get("charset", "utf-8").lower() not in (
        "utf-8",
        "utf8",
    ):
        sent = request.headers.get("Content-Type") or "no Content-Type"
        raise Problem(415, f"send the body as application/json in UTF-8; this came with {sent[:100]!r}")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(415, "send the body as it is, without a Content-Encoding")
    try:
        document = message.parse(content(request, settings.max_body_bytes), message.DEEP + model.LEVELS)
    except message.BadRecord as error:
        raise Problem(400, f"the body is not JSON: {error.detail}", reason=error.reason) from None
    if not isinstance(document, Mapping):
        detail = f"the body must be a JSON object, found {message.json_type(document)}"
        raise Problem(400, detail, reason="not-an-object")
    try:
        return model.model_validate(document, context={"max_text_chars": settings.max_text_chars})
    except ValidationError as error:
        raise from_validation(error) from None
    except RecursionError:
        raise Problem(400, "the body is nested too deeply", reason="invalid-json") from None


def content(request: Request, limit: int) -> bytes:
    """The body. Raises RequestEntityTooLarge, also for a chunked body, which Werkzeug would cut at the limit. Raises
    Problem 400 for a body that does not come as it was announced, and 408 for one that stops coming."""
    try:
        return whole(request, limit)
    except STALLED:
        request.environ["wsgi.input"] = BytesIO()  # `drain` would wait for the rest once more
        raise Problem(408, "the rest of the body did not come in time: send it again, without a pause") from None
    except UNREADABLE as error:
        raise Problem(400, f"the body ends early, or its chunks are wrong: {error}") from None


def whole(request: Request, limit: int) -> bytes:
    announced = request.content_length
    if announced is not None and announced > limit:
        raise RequestEntityTooLarge
    if announced is None and not request.environ.get("wsgi.input_terminated"):
        return b""
    stream, most = request.environ["wsgi.input"], limit + 1 if announced is None else announced
    taken = bytearray()
    while len(taken) < most and (part := stream.read(min(most - len(taken), PART_BYTES))):
        taken += part
    if len(taken) > limit:
        raise RequestEntityTooLarge
    if announced is not None and len(taken) < announced:
        raise Problem(400, f"the body ends early: {len(taken)} bytes of {announced}")
    return bytes(taken)


def take_form(request: Request, limit: int) -> None:
    """Has a form that does not come whole told like a JSON body, before Werkzeug reads it: that would call it a broken
    request, or a bug. Raises as `content` does."""
    request.environ["wsgi.input"] = BytesIO(content(request, limit))


def drain(request: Request) -> None:
    """Reads the rest of the body, so that a client that is still sending gets its answer and no broken pipe."""
    if request.content_length is None and not request.environ.get("wsgi.input_terminated"):
        return
    left, deadline = DRAIN_BYTES, time.monotonic() + DRAIN_SECONDS
    stream = request.environ["wsgi.input"]
    while left > 0 and time.monotonic() < deadline:
        try:
            taken = len(stream.read(min(left, 65_536)))
        except UNREADABLE:  # gunicorn closes the connection over it
            break
        if taken == 0:
            break
        left -= taken


def check_path(request: Request) -> None:
    """Raises Problem 404 for percent-encoded bytes that are no UTF-8: Werkzeug would take them for U+FFFD, which may be
    somebody's id."""
    try:
        request.environ["PATH_INFO"].encode("latin-1").decode()
    except UnicodeDecodeError:
        raise Problem(404, "the path is not UTF-8: percent-encode its characters as UTF-8") from None


def query(request: Request, model: type[Model]) -> Model:
    """The checked query string. Unknown parameters are ignored; the same one twice is an error. Raises Problem 400."""
    given: dict[str, str] = {}
    try:
        unquote_to_bytes(request.query_string).decode()
    except UnicodeDecodeError:
        raise Problem(400, "the query string is not UTF-8: percent-encode its characters as UTF-8") from None
    for name in model.model_fields:
        values = request.args.getlist(name)
        if len(values) > 1:
            raise Problem(400, f"{name}: give it once, not {len(values)} times")
        if values:
            given[name] = values[0]
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise from_validation(error) from None


def from_validation(error: ValidationError) -> Problem:
    found = error.errors(include_url=False)
    bad = [(each["loc"], each["ctx"]["error"]) for each in found if is_bad_record(each)]
    if bad and len(bad) == len(found):
        return from_bad_records(bad)
    details = [f"{location(each['loc'])}: {words_of(each)}{value_of(each)}" for each in found[:5]]
    return Problem(400, "; ".join(details))


def from_bad_records(bad: list[tuple[tuple[int | str, ...], message.BadRecord]]) -> Problem:
    """The problem of what would be a dead letter, with the same reason: the message itself, or messages of a batch."""
    place, first = bad[0]
    status = 413 if all(each.reason == "text-too-long" for _, each in bad) else 400
    if not place:
        return Problem(status, about(first), reason=first.reason)
    errors = [{"index": loc[1], "reason": each.reason, "detail": about(each)} for loc, each in bad[:MAX_BATCH]]
    more = f", and {len(bad) - 1} more" if len(bad) > 1 else ""
    detail = f"message {place[1]}: {about(first)}{more}; nothing was sent"
    return Problem(status, detail, reason=first.reason, errors=errors)


def about(error: message.BadRecord) -> str:
    member = MEMBERS.get(error.reason)
    return f"{member}: {error.detail}" if member else error.detail


def is_bad_record(error: Mapping[str, Any]) -> bool:
    return isinstance(error.get("ctx", {}).get("error"), message.BadRecord)


def location(place: tuple[int | str, ...]) -> str:
    """`since`, `messages`: the members' names, without the names of pydantic's own steps."""
    return ".".join(str(step) for step in place if isinstance(step, int) or step.isidentifier()) or "the body"


def words_of(error: Mapping[str, Any]) -> str:
    """What is wrong, in the words of JSON instead of Python's."""
    said = PATTERNS.get(error.get("ctx", {}).get("pattern")) or str(error["msg"]).removeprefix("Value error, ")
    said = said.replace("a valid dictionary", "an object").replace("a valid list", "an array")
    said = said.replace("List", "Array").replace(" after validation", "")
    return said[:1].lower() + said[1:]


def value_of(error: Mapping[str, Any]) -> str:
    """The value as JSON has it, and its first characters if it is long; nothing for what holds others."""
    value = error.get("input")
    if isinstance(value, str):
        return f", found {value[:50]!r}"
    if value is None:
        return ", found null"
    if isinstance(value, bool):
        return f", found {str(value).lower()}"
    return f", found {str(value)[:50]}" if isinstance(value, int | float | Decimal) else ""
