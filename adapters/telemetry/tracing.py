"""OpenTelemetry traces: a request under its caller's trace, and where the time of its answers went.

Imported only when traces are on; it takes OpenTelemetry's SDK (`portico-mlx[otel]`).
"""

import threading
import time
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from application.record import AnswerRecord

_LAST_WORDS = 3.0  # seconds at most for what is not sent yet, at the end
_QUIET = {"/livez", "/readyz", "/metrics"}  # asked every few seconds, by machines
_SERVER_ERROR = 500


class Tracing:
    """Spans for requests (`instrument`) and their answers (an application.record.Observer)."""

    def __init__(self, processor: SpanProcessor) -> None:
        # The environment's attributes (OTEL_SERVICE_NAME and such) count more than ours.
        resource = Resource.create({SERVICE_NAME: "portico"}).merge(OTELResourceDetector().detect())
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("portico")

    def instrument(self, app: ASGIApp) -> ASGIApp:
        """The same application, each request in a span of its own."""
        return _RequestSpans(app, self._tracer)

    def begun(self, record: AnswerRecord) -> None:
        """Spans are written when it has ended, since only then it is known what they were."""

    def first_token(self, record: AnswerRecord) -> None:
        """As above."""

    def ended(self, record: AnswerRecord) -> None:
        """One span for the answer, and in it one for each phase that it came to."""
        at = _WallClock(record)
        end = record.begun + record.duration
        answer = self._tracer.start_span(
            "answer", attributes=_attributes(record), start_time=at(record.begun)
        )
        inside = trace.set_span_in_context(answer)
        starts = [
            ("queue", record.begun),
            ("prefill", record.admitted),
            ("decode", record.first_token),
        ]
        reached = [(name, start) for name, start in starts if start is not None]
        ends = [start for _, start in reached[1:]] + [end]
        for (name, start), stop in zip(reached, ends, strict=True):
            span = self._tracer.start_span(name, inside, start_time=at(start))
            span.end(at(stop))
        if record.error:
            answer.set_status(Status(StatusCode.ERROR, type(record.error).__name__))
        answer.end(at(end))

    def close(self) -> None:
        """Send what is not sent yet; blocks for a few seconds at most, whoever does not answer."""
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(_LAST_WORDS)


def over_otlp(endpoint: str | None) -> Tracing:
    """endpoint: as far as `/v1/traces`; None is what OTEL_EXPORTER_OTLP_… say."""
    exporter = OTLPSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
    return Tracing(BatchSpanProcessor(exporter))


class _WallClock:
    """Unix nanoseconds of the record's times, which are those of another clock."""

    def __init__(self, record: AnswerRecord) -> None:
        self._offset = time.time_ns() - round(record.clock() * 1e9)

    def __call__(self, seconds: float) -> int:
        return self._offset + round(seconds * 1e9)


def _attributes(record: AnswerRecord) -> dict[str, Any]:
    """OpenTelemetry's names for what models do."""
    attributes: dict[str, Any] = {
        "gen_ai.provider.name": "portico",
        "gen_ai.request.model": str(record.model),
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.cache_read.input_tokens": record.cached_tokens,
        "gen_ai.usage.output_tokens": record.generated_tokens,
    }
    if record.error:
        attributes["error.type"] = type(record.error).__name__
    else:
        attributes["gen_ai.response.finish_reasons"] = [record.reason or "abort"]
    return attributes


class _RequestSpans:
    """ASGI: a server span, under the trace that the request's headers name."""

    def __init__(self, app: ASGIApp, tracer: trace.Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): text.decode("latin-1") for name, text in scope["headers"]
        }

        with self._tracer.start_as_current_span(
            scope["method"],
            extract(headers),
            SpanKind.SERVER,
            {"http.request.method": scope["method"], "url.path": scope["path"]},
            record_exception=False,
        ) as span:

            async def seen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    _note_start(span, message)
                await send(message)

            await self._app(scope, receive, seen)
            if route := getattr(scope.get("route"), "path", ""):
                span.update_name(f"{scope['method']} {route}")
                span.set_attribute("http.route", route)


def _note_start(span: Span, message: Message) -> None:
    status = message["status"]
    span.set_attribute("http.response.status_code", status)
    headers = dict(message["headers"])
    span.set_attribute("portico.request_id", headers.get(b"x-request-id", b"").decode())
    if status >= _SERVER_ERROR:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute("error.type", str(status))
