"""Spans of OpenTelemetry for an API's calls. Only api.tracing imports this, and only where traces are wanted."""

from collections.abc import Callable, MutableMapping

from flask import Flask, Response, g, request
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, Status, StatusCode

from api.problems import route, this_call
from settings import Settings
from telemetry.spans import FIELDS, W3C, start_tracer

# No spans for these: machines and open pages ask for them every few seconds.
UNWATCHED = ("/health", "/metrics", "/console/live", "/static", "/console/static")


def watch(settings: Settings, app: Flask, name: str) -> Callable[[MutableMapping[str, str]], None]:
    """Returns what writes the context of the call under way into a carrier."""
    tracer = start_tracer(settings, name)

    def begin() -> None:
        if request.path.startswith(UNWATCHED):
            return
        span = tracer.start_span(
            this_call(),
            context=W3C.extract({name: request.headers[name] for name in FIELDS if name in request.headers}, Context()),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": request.method, "http.route": route()},
        )
        g.span = span, context.attach(trace.set_span_in_context(span))

    def answered(response: Response) -> Response:
        if "span" in g:
            g.span[0].set_attribute("http.response.status_code", response.status_code)
            if response.status_code >= 500:
                g.span[0].set_status(Status(StatusCode.ERROR))
        return response

    def end(_error: BaseException | None = None) -> None:
        if "span" in g:
            span, token = g.pop("span")
            context.detach(token)
            span.end()

    app.before_request_funcs.setdefault(None, []).insert(0, begin)
    app.after_request(answered)
    app.teardown_request(end)
    return W3C.inject
