"""Traces: what a request and its answers leave behind, in memory and over OTLP/HTTP."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from adapters.container import Container
from adapters.scripted.engine import Script, ScriptedLoader
from adapters.settings import Settings
from adapters.telemetry.tracing import Tracing, over_otlp
from domain.errors import InvalidRequest
from tests.servers import LiveServer, live_server, scripted_settings
from tests.waiting import until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
BODY = {"model": "m", "messages": [{"role": "user", "content": "canary"}]}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SDK_DISABLED", "TRACES_EXPORTER", "EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(f"OTEL_{name}", raising=False)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def container_for(root: Path, script: Script, **settings: object) -> Container:
    container = Container(settings=scripted_settings(root, "m", **settings))
    container.loader.override(ScriptedLoader(script))
    return container


@pytest.fixture
def server(tmp_path: Path, exporter: InMemorySpanExporter) -> Iterator[LiveServer]:
    script = Script(reply="one two three", prompt_delay=0.02, token_delay=0.01)
    container = container_for(tmp_path, script)
    container.tracing.override(Tracing(SimpleSpanProcessor(exporter)))
    with live_server(container) as server:
        yield server


def ask(server: LiveServer, **fields: object) -> httpx.Response:
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
    url = f"{server.url}/v1/chat/completions"
    return httpx.post(url, json=BODY | fields, headers=headers, timeout=30)


def spans(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """By name; the request's comes last."""
    assert until(lambda: any(s.kind is SpanKind.SERVER for s in exporter.get_finished_spans()), 10)
    return {span.name: span for span in exporter.get_finished_spans()}


def parent(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0


def span_id(span: ReadableSpan) -> int:
    return span.context.span_id if span.context else 0


def seconds(span: ReadableSpan) -> float:
    return ((span.end_time or 0) - (span.start_time or 0)) / 1e9


@pytest.mark.parametrize("stream", [True, False])
def test_phases_stand_under_the_callers_trace(
    server: LiveServer, exporter: InMemorySpanExporter, stream: bool
) -> None:
    answer = ask(server, stream=stream)
    found = spans(exporter)
    assert set(found) == {"POST /v1/chat/completions", "answer", "queue", "prefill", "decode"}
    request, whole = found["POST /v1/chat/completions"], found["answer"]
    assert {f"{s.context.trace_id:032x}" for s in found.values() if s.context} == {TRACE}
    assert f"{parent(request):016x}" == PARENT
    assert parent(whole) == span_id(request)
    phases = [found[name] for name in ("queue", "prefill", "decode")]
    assert all(parent(phase) == span_id(whole) for phase in phases)
    assert [p.end_time for p in phases[:-1]] == [p.start_time for p in phases[1:]]
    assert phases[0].start_time == whole.start_time
    assert phases[-1].end_time == whole.end_time
    assert seconds(found["prefill"]) >= 0.02
    assert seconds(found["decode"]) >= 0.015
    now = time.time_ns()
    assert now - 60e9 < (request.start_time or 0) <= (whole.start_time or 0) < now
    attributes = request.attributes or {}
    assert attributes["http.response.status_code"] == 200
    assert attributes["portico.request_id"] == answer.headers["x-request-id"]
    counted = whole.attributes or {}
    assert counted["gen_ai.request.model"] == "m"
    assert counted["gen_ai.usage.output_tokens"] == 3
    assert counted["gen_ai.response.finish_reasons"] == ("stop",)
    assert "canary" not in "".join(span.to_json() for span in found.values())


def test_choices_have_spans_of_their_own(
    server: LiveServer, exporter: InMemorySpanExporter
) -> None:
    ask(server, n=3)
    spans(exporter)
    names = [span.name for span in exporter.get_finished_spans()]
    assert [names.count(name) for name in ("answer", "queue", "decode")] == [3, 3, 3]


def test_failures_are_marked(tmp_path: Path, exporter: InMemorySpanExporter) -> None:
    container = container_for(tmp_path, Script(fail_after=1, reply="one two three"))
    container.tracing.override(Tracing(SimpleSpanProcessor(exporter)))
    with live_server(container) as server:
        assert ask(server).status_code == 500
        found = spans(exporter)
        assert found["answer"].status.status_code is StatusCode.ERROR
        assert (found["answer"].attributes or {})["error.type"] == "EngineFailed"
        assert found["POST /v1/chat/completions"].status.status_code is StatusCode.ERROR
        exporter.clear()
        assert ask(server, model="nope").status_code == 404
        found = spans(exporter)
        assert set(found) == {"POST /v1/chat/completions", "answer", "queue"}
        assert found["POST /v1/chat/completions"].status.status_code is StatusCode.UNSET


def test_probes_leave_nothing(server: LiveServer, exporter: InMemorySpanExporter) -> None:
    for path in ("/livez", "/readyz", "/metrics"):
        httpx.get(f"{server.url}{path}")
    httpx.get(f"{server.url}/v1/models")
    assert set(spans(exporter)) == {"GET /v1/models"}


class Collector(ThreadingHTTPServer):
    """Takes traces over OTLP/HTTP."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.received: list[tuple[str, ExportTraceServiceRequest]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, ExportTraceServiceRequest.FromString(body)))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        thread = threading.Thread(target=collector.serve_forever)
        thread.start()
        yield collector
        collector.shutdown()
        thread.join()


@pytest.mark.parametrize("by_setting", [True, False])
def test_a_collector_gets_them_at_the_latest_when_the_server_ends(
    tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch, by_setting: bool
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "my-portico")
    if not by_setting:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    settings = {"otlp_endpoint": collector.url} if by_setting else {}
    with live_server(container_for(tmp_path, Script(), **settings)) as server:
        ask(server)
    resources = [r for _, request in collector.received for r in request.resource_spans]
    names = [s.name for r in resources for scope in r.scope_spans for s in scope.spans]
    assert sorted(names) == ["POST /v1/chat/completions", "answer", "decode", "prefill", "queue"]
    assert {path for path, _ in collector.received} == {"/v1/traces"}
    services = {a.value.string_value for r in resources for a in r.resource.attributes}
    assert "my-portico" in services


def test_a_collector_that_is_not_there_harms_nobody(tmp_path: Path) -> None:
    settings = {"otlp_endpoint": "http://127.0.0.1:9"}
    began = time.monotonic()
    with live_server(container_for(tmp_path, Script(), **settings)) as server:
        assert ask(server).status_code == 200
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("variables", "traces"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/x"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a"}, False),
    ],
)
def test_the_standard_variables_count(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], traces: bool
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Settings().traces is traces


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "adapters.telemetry.tracing")
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.resources", None)
    container = container_for(tmp_path, Script(), otlp_endpoint="http://127.0.0.1:9")
    with pytest.raises(InvalidRequest, match=r"install portico-mlx\[otel\]"):
        container.tracing()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    assert Container(settings=Settings()).tracing() is None
    assert "portico-mlx[otel]" in caplog.text


def test_an_endpoint_is_a_url() -> None:
    with pytest.raises(ValueError, match="otlp_endpoint"):
        Settings(otlp_endpoint="localhost:4318")


def test_endpoints_may_end_with_a_slash(collector: Collector) -> None:
    tracing = over_otlp(f"{collector.url}/")
    with tracing._tracer.start_as_current_span("one"):
        pass
    tracing.close()
    assert [path for path, _ in collector.received] == ["/v1/traces"]


def test_opentelemetry_is_not_imported_unless_traces_are_on(tmp_path: Path) -> None:
    """Nor what makes the page of metrics, before there is a server to have one."""
    program = (
        "import sys; from adapters.cli.serve import application;"
        "from adapters.container import Container; from adapters.settings import Settings;"
        "assert 'prometheus_client' not in sys.modules;"
        "application(Container(settings=Settings(backend='scripted')));"
        "assert 'prometheus_client' in sys.modules;"
        "assert 'opentelemetry.sdk' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 0, done.stderr
