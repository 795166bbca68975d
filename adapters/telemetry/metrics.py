"""Prometheus metrics of one server, under vLLM's names: `portico_…` where it has `vllm:…`."""

import asyncio
from collections.abc import Callable, Iterator, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric
from prometheus_client.exposition import choose_encoder

from adapters.telemetry.answers import Answers, known_name
from adapters.telemetry.pool import PoolCollector
from adapters.telemetry.process import ProcessCollector
from application.pool_state import PoolEvent, PoolEventKind, PoolSnapshot
from application.ports import Clock
from application.record import AnswerRecord
from domain.models import ModelId

# vLLM's, with finer ones at the lower end for small models.
_SECONDS = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.2, 0.3, 0.5, 0.8),
    *(1, 1.5, 2, 2.5, 5, 7.5, 10, 15, 20, 30, 40, 60, 80, 120, 240, 480, 960, 1920, 7680),
)
_TOKENS = tuple(digit * 10**power for power in range(6) for digit in (1, 2, 5))

# Each has the label model_name.
_HISTOGRAMS = {
    "time_to_first_token_seconds": ("From a request to its first token", _SECONDS),
    "request_queue_time_seconds": (
        "From a request to its place in the batch, a load of the model included",
        _SECONDS,
    ),
    "request_prefill_time_seconds": ("From a place in the batch to the first token", _SECONDS),
    "request_decode_time_seconds": ("From the first token to the last", _SECONDS),
    "e2e_request_latency_seconds": ("From a request to the end of its answer", _SECONDS),
    "request_prompt_tokens": ("Tokens of prompts", _TOKENS),
    "request_generation_tokens": ("Tokens of answers", _TOKENS),
    "model_load_time_seconds": ("From the start of a load to a model that answers", _SECONDS),
}
_COUNTERS = {
    "request_success": (
        "Answers that came to their end (stop, length, tool_calls), or whose client left (abort)",
        ("model_name", "finished_reason"),
    ),
    "request_errors": (
        "HTTP requests that failed, by the code of their error",
        ("model_name", "code"),
    ),
    "http_requests": ("HTTP requests, by route and status", ("method", "handler", "status")),
    "model_loads": ("Loads that succeeded", ("model_name",)),
    "model_load_failures": ("Loads that failed", ("model_name",)),
    "engine_deaths": ("Engines that broke, or whose process ended", ("model_name",)),
    "engine_hangs": ("Engines that were given up because they hung", ("model_name",)),
    "model_evictions": (
        "Times a model left memory: for another, idle, broken, or on request",
        ("model_name",),
    ),
}
_EVENTS = {
    PoolEventKind.LOADED: "model_loads",
    PoolEventKind.LOAD_FAILED: "model_load_failures",
    PoolEventKind.UNLOADING: "model_evictions",
    PoolEventKind.DIED: "engine_deaths",
    PoolEventKind.HUNG: "engine_hangs",
}
_FAULTS = ("engine_failed", "server_error")  # the server's own; worth an alarm
_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})


class _Everything:
    """What has been read already, and what a registry collects."""

    def __init__(self, read: Sequence[Metric], registry: CollectorRegistry) -> None:
        self._read = read
        self._registry = registry

    def collect(self) -> Iterator[Metric]:
        yield from self._read
        yield from self._registry.collect()


class Metrics:
    """Watches answers, requests and the pool; `page` tells of them.

    Labels are bounded: a model is named once a request of it was let in, and what clients make up
    is not.
    """

    def __init__(self, snapshot: Callable[[], PoolSnapshot], version: str, clock: Clock) -> None:
        self._registry = CollectorRegistry()
        self._clock = clock
        self._loading: dict[ModelId, float] = {}
        self._answers = Answers()
        self._pool = PoolCollector(snapshot, version)
        self._registry.register(ProcessCollector())
        self._histograms = {
            name: Histogram(
                f"portico_{name}", text, ["model_name"], buckets=buckets, registry=self._registry
            )
            for name, (text, buckets) in _HISTOGRAMS.items()
        }
        self._counters = {
            name: Counter(f"portico_{name}", text, labels, registry=self._registry)
            for name, (text, labels) in _COUNTERS.items()
        }
        self._expect_faults("")

    def begun(self, record: AnswerRecord) -> None:
        self._answers.begun(record)

    def first_token(self, record: AnswerRecord) -> None:
        name, timings = str(record.model), record.timings
        self._observe("time_to_first_token_seconds", name, timings.first_token)
        self._observe("request_queue_time_seconds", name, timings.queue)
        self._observe("request_prefill_time_seconds", name, timings.prefill)

    def ended(self, record: AnswerRecord) -> None:
        self._answers.ended(record)
        name = known_name(record)
        if record.reason:
            self._count("request_success", name, record.reason)
            self._observe("request_decode_time_seconds", name, record.timings.decode)
            self._observe("e2e_request_latency_seconds", name, record.duration)
            self._observe("request_prompt_tokens", name, record.prompt_tokens)
            self._observe("request_generation_tokens", name, record.generated_tokens)
        elif record.error is None:
            self._count("request_success", name, "abort")

    def request(self, method: str, handler: str, status: int, model: str, code: str) -> None:
        """An HTTP request was answered. handler: the route's pattern. model: one that is here, or
        empty. code: of its error, or empty.
        """
        named = method if method in _METHODS else "OTHER"
        self._count("http_requests", named, handler, str(status))
        if code:
            self._count("request_errors", model, code)

    def pool_event(self, event: PoolEvent) -> None:
        """Something happened to a model."""
        if event.kind is PoolEventKind.LOADING:
            self._loading[event.model] = self._clock()
            for counter in _EVENTS.values():  # from 0, so that the first one is a rise
                self._counters[counter].labels(str(event.model))
            self._histograms["model_load_time_seconds"].labels(str(event.model))
            self._expect_faults(str(event.model))
        if event.kind is PoolEventKind.LOADED and event.model in self._loading:
            seconds = self._clock() - self._loading[event.model]
            self._observe("model_load_time_seconds", str(event.model), seconds)
        if name := _EVENTS.get(event.kind):
            self._count(name, str(event.model))

    async def page(self, accept: str) -> tuple[bytes, str]:
        """All of it and its content type: what a scraper accepts, or Prometheus' text.

        What lives on the event loop is read on it; the rest takes milliseconds a model, in a
        thread, so that no stream waits for it.
        """
        encode, content_type = choose_encoder(accept)
        read = [*self._answers.collect(), *self._pool.collect()]
        return await asyncio.to_thread(encode, _Everything(read, self._registry)), content_type

    def _expect_faults(self, model: str) -> None:
        for code in _FAULTS:
            self._counters["request_errors"].labels(model, code)

    def _observe(self, name: str, model: str, value: float) -> None:
        self._histograms[name].labels(model).observe(value)

    def _count(self, name: str, *labels: str) -> None:
        self._counters[name].labels(*labels).inc()
