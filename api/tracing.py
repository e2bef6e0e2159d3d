"""The trace context of a call, which goes on to Kafka in a record's headers, with OpenTelemetry or without it."""

import re
from collections.abc import Callable, MutableMapping

from flask import Flask
from werkzeug.datastructures import Headers

from settings import Settings
from telemetry import tracing

# https://www.w3.org/TR/trace-context/
TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")

_inject: Callable[[MutableMapping[str, str]], None] | None = None


def watch(settings: Settings, app: Flask, name: str) -> None:
    """Makes a span of each call, if traces are wanted. Raises InvalidSetting if the packages are missing."""
    global _inject
    if tracing.is_on(settings):
        from api import spans

        _inject = spans.watch(settings, app, name)


def kafka_headers(came: Headers) -> list[tuple[str, bytes]]:
    """The context for a record's headers: that of this call's span, or else the one that came with the request."""
    carrier: dict[str, str] = {}
    if _inject is not None:
        _inject(carrier)
    elif TRACEPARENT.fullmatch(parent := came.get("traceparent", "")):
        carrier["traceparent"] = parent
        if TRACESTATE.fullmatch(state := came.get("tracestate", "")):
            carrier["tracestate"] = state
    return [(name, value.encode("ascii")) for name, value in carrier.items()]
