"""Counts and latencies for Prometheus. Labels are bounded: routes and methods by name, never a path as it came.

With several gunicorn workers the numbers of all are added up (gunicorn.conf.py sets DIRECTORY).
"""

import os
import time

from flask import Flask, Response, g, request
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    multiprocess,
)
from prometheus_client.registry import Collector

from api.problems import route

DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"  # prometheus-client's own variable
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The metrics of one application, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.pipeline: Collector | None = None
        self.shared = DIRECTORY in os.environ
        if not self.shared:
            ProcessCollector(registry=self.registry)
            PlatformCollector(registry=self.registry)
        self.requests = Counter(
            "http_requests_total", "Requests answered", ["method", "route", "status"], registry=self.registry
        )
        self.request_seconds = Histogram(
            "http_request_duration_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.search_seconds = Histogram(
            "search_duration_seconds", "Time of a search, its embedding included", ["mode"], buckets=SECONDS,
            registry=self.registry,
        )  # fmt: skip

    def watch(self, app: Flask) -> None:
        @app.before_request
        def begin() -> None:
            g.began = time.perf_counter()
            if self.shared:  # it is gone where somebody sweeps old temporary files, and nothing could be counted then
                os.makedirs(os.environ[DIRECTORY], mode=0o700, exist_ok=True)

        @app.after_request
        def end(response: Response) -> Response:
            method = request.method if request.method in METHODS else "other"
            self.requests.labels(method, route(), response.status_code).inc()
            self.request_seconds.labels(method, route()).observe(time.perf_counter() - g.began)
            return response

    def show_too(self, pipeline: Collector) -> None:
        """Shows the numbers of the whole pipeline beside those of this application."""
        self.pipeline = pipeline

    def answer(self) -> Response:
        registry = self.registry
        if self.shared:
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        page = generate_latest(registry)
        if self.pipeline is not None:
            # Not registered: a worker of several would then have it in the numbers that all add up.
            numbers = CollectorRegistry()
            numbers.register(self.pipeline)
            page += generate_latest(numbers)
        return Response(page, content_type=CONTENT_TYPE_LATEST)
