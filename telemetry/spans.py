"""Spans of OpenTelemetry: of a bridge's hand-overs and a worker's tasks, in one trace with the record's producer. Only
telemetry.tracing imports this, and only if traces are wanted; the spans of an API's calls are in api/spans.py.

A hand-over of one record goes on in its producer's trace; one of many has a trace of its own, with a link to each. No
span holds a text.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from celery import signals, states
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

import task_names
from settings import Settings
from telemetry.logs import short_line

log = logging.getLogger(__name__)

W3C = TraceContextTextMapPropagator()
FIELDS = ("traceparent", "tracestate")

EXPORT_SECONDS = 3.0
FLUSH_SECONDS = 3.0  # for which an ending part waits for the collector
LINKS_MOST = 2_000  # or BRIDGE_BATCH_MAX, where that is more; the library's own limit would be 128

# Who writes a line at each export that fails, or whose answer has odd headers.
LIBRARY, BELOW_IT = OTLPSpanExporter.__module__, ("urllib3.connection", "urllib3.connectionpool")

# Beat's, one a second each, would be all that a trace viewer shows.
UNTRACED = frozenset({task_names.SWEEP, task_names.TEND_INDEX})


class Exporter(OTLPSpanExporter):
    """Says once that the collector takes nothing, and once that it takes traces again. The library would write a line
    or two at each try, every few seconds in each process."""

    away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        said: list[str] = []

        def heard(record: logging.LogRecord) -> bool:
            if record.name == LIBRARY:
                said.append(record.getMessage())
            return log.isEnabledFor(logging.DEBUG)

        for name in (LIBRARY, *BELOW_IT):
            logging.getLogger(name).addFilter(heard)
        try:
            result = super().export(spans)
        finally:
            for name in (LIBRARY, *BELOW_IT):
                logging.getLogger(name).removeFilter(heard)
        away = result is not SpanExportResult.SUCCESS
        if away and not self.away:
            log.warning("traces are dropped, the collector does not take them: %s", short_line("\n".join(said)))
        elif self.away and not away:
            log.info("the collector takes traces again")
        self.away = away
        return result


def start_tracer(settings: Settings, part: str) -> Tracer:
    """A tracer that sends in the background; what it cannot send is dropped, and holds nobody up."""
    provider = TracerProvider(
        resource=Resource.create({"service.namespace": "text-pipeline", "service.name": part}),
        span_limits=limits(settings),
        shutdown_on_exit=False,  # that would wait for a collector that is away
    )
    logging.getLogger(trace.__name__).setLevel(logging.ERROR)  # it warns of anybody's headers, and quotes them
    address = f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces"
    provider.add_span_processor(BatchSpanProcessor(Exporter(endpoint=address, timeout=EXPORT_SECONDS)))

    def flush(**_: object) -> None:
        sending = threading.Thread(target=provider.force_flush, daemon=True)
        sending.start()
        sending.join(FLUSH_SECONDS)

    atexit.register(flush)
    signals.worker_process_shutdown.connect(flush, weak=False)  # a pool's child ends without atexit
    signals.before_task_publish.connect(pass_on, weak=False)
    return provider.get_tracer("text-pipeline")


def limits(settings: Settings) -> SpanLimits:
    return SpanLimits(max_links=max(LINKS_MOST, settings.bridge_batch_max))


def pass_on(headers: MutableMapping[str, Any] | None = None, **_: object) -> None:
    """Gives a task that is being sent the context of its sender."""
    if headers is not None:
        W3C.inject(headers)


# --- The bridge ---


def watch_bridge(settings: Settings, hand_overs: Any) -> None:
    tracer = start_tracer(settings, "bridge")
    begin, publish = hand_overs.begin, hand_overs.publish
    sent_in: WeakKeyDictionary[Any, Context] = WeakKeyDictionary()

    def traced_begin(records: Sequence[Any], finished: Callable[[], None]) -> None:
        senders = [found for record in records if record.headers for found in sender(record.headers)]
        alone = len(records) == 1 and len(senders) == 1
        span = tracer.start_span(
            f"{settings.kafka_topic} hand over",
            context=senders[0] if alone else Context(),
            kind=SpanKind.CONSUMER,
            links=() if alone else [Link(trace.get_current_span(each).get_span_context()) for each in senders],
            attributes=about(settings, records),
        )

        def ended() -> None:
            finished()
            span.end()  # the effect of all of them is durable

        with trace.use_span(span, end_on_exit=False):
            begin(records, ended)

    def traced_publish(task: Any) -> bool:
        """A task that is sent again, outside of the hand-over's span, still belongs to it."""
        token = context.attach(sent_in.setdefault(task, context.get_current()))
        try:
            sent: bool = publish(task)
            return sent
        finally:
            context.detach(token)

    hand_overs.begin, hand_overs.publish = traced_begin, traced_publish


def sender(headers: Iterable[tuple[str, bytes | None]]) -> list[Context]:
    """The context in a record's headers; empty if there is none, or a wrong one."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in FIELDS and value is not None:
            carrier.setdefault(name, value.decode("ascii", "replace"))
    if not carrier:
        return []
    found = W3C.extract(carrier, Context())
    return [found] if trace.get_current_span(found).get_span_context().is_valid else []


def about(settings: Settings, records: Sequence[Any]) -> dict[str, str | int]:
    """https://opentelemetry.io/docs/specs/semconv/messaging/kafka/"""
    found: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.name": "hand over",
        "messaging.operation.type": "process",
        "messaging.destination.name": settings.kafka_topic,
        "messaging.consumer.group.name": settings.kafka_group_id,
        "messaging.batch.message_count": len(records),
    }
    if len(records) == 1:
        found["messaging.destination.partition.id"] = str(records[0].partition)
        found["messaging.kafka.offset"] = records[0].offset
    return found


# --- The workers ---


def watch_worker(settings: Settings) -> None:
    tracer = start_tracer(settings, "worker")
    running: dict[str, tuple[Span, Any]] = {}

    def begin(task_id: str, task: Any, args: Any = (), **_: object) -> None:
        if task.name in UNTRACED:
            return
        carrier = {name: getattr(task.request, name, None) or "" for name in FIELDS}
        span = tracer.start_span(
            task.name.removeprefix("tasks."),
            context=W3C.extract({name: value for name, value in carrier.items() if value}, Context()),
            kind=SpanKind.CONSUMER,
            attributes={"celery.task_id": task_id, "celery.retries": task.request.retries, **carried(task.name, args)},
        )
        running[task_id] = span, context.attach(trace.set_span_in_context(span))

    def end(task_id: str, state: str | None = None, **_: object) -> None:
        if task_id not in running:
            return
        span, token = running.pop(task_id)
        context.detach(token)
        span.set_attribute("celery.state", state or "")
        if state == states.FAILURE:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    signals.task_prerun.connect(begin, weak=False)
    signals.task_postrun.connect(end, weak=False)


def carried(name: str, args: Sequence[Any]) -> Mapping[str, int]:
    """How many records or messages a task has in hand."""
    place = {task_names.PERSIST_TEXT: 0, task_names.RECORD_DEAD_LETTERS: 0, task_names.EMBED_TEXT: 1}.get(name)
    if place is None or len(args) <= place or args[place] is None:
        return {}
    return {"messaging.batch.message_count": len(args[place])}
