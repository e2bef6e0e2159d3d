"""/health and /metrics. Every check has an end, and all run at once, so /health answers within seconds."""

from concurrent.futures import ThreadPoolExecutor

from flask import Response

from api import schemas
from api.answers import json_answer
from api.openapi import Answer, Operation
from api.parts import Parts
from api.probes import Probe
from db.session import first_line


def state(probe: Probe[None]) -> str:
    try:
        probe.answer()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the reason
        return first_line(error)
    return "ok"


def get_health(parts: Parts) -> Response:
    with ThreadPoolExecutor(len(parts.checks), "health") as threads:
        checks = dict(zip(parts.checks, threads.map(state, parts.checks.values()), strict=True))
    healthy = all(each == "ok" for each in checks.values())
    return json_answer({"status": "ok" if healthy else "unavailable", "checks": checks}, 200 if healthy else 503)


def get_metrics(parts: Parts) -> Response:
    return parts.metrics.answer()


OPERATIONS = [
    Operation(
        "GET",
        "/health",
        get_health,
        "Whether this API and the parts that it needs are there",
        {200: Answer("all are there", schemas.Health), 503: Answer("one is not, with the reason", schemas.Health)},
        open=True,
    ),
    Operation(
        "GET",
        "/metrics",
        get_metrics,
        "Counts and latencies for Prometheus",
        {200: Answer("the exposition format of Prometheus", content_type="text/plain")},
        open=True,
    ),
]
