"""The pool, as it stands when it is asked."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from application.pool_state import FailingModel, PoolSnapshot, ResidentSnapshot


def _kv_usage(resident: ResidentSnapshot) -> float:
    reserve = resident.plan.need.kv_cache
    return resident.stats.kv_bytes / reserve if reserve else 0.0


# Of each model that holds memory: name, what it is, value.
_GAUGES: tuple[tuple[str, str, Callable[[ResidentSnapshot], float]], ...] = (
    (
        "num_requests_running",
        "Requests in the batch",
        lambda resident: resident.stats.running,
    ),
    (
        "num_requests_waiting",
        "Requests that wait for the model's load, or for a place in its batch",
        lambda resident: resident.waiting + resident.stats.waiting,
    ),
    ("kv_cache_usage_perc", "Share of the KV reserve that is in use; 1 is all of it", _kv_usage),
    (
        "model_memory_bytes",
        "What the model holds: weights, KV reserve and prefill",
        lambda resident: resident.need,
    ),
    (
        "engine_silence_seconds",
        "Since the engine's last sign of life amid work; 0 while it has none",
        lambda resident: max(resident.silence, 0.0),
    ),
)

# And since it was loaded.
_COUNTERS: tuple[tuple[str, str, Callable[[ResidentSnapshot], float]], ...] = (
    (
        "num_preemptions",
        "Times a request gave its place up, since the model was loaded",
        lambda resident: resident.stats.preemptions,
    ),
    (
        "spec_decode_num_draft_tokens",
        "Tokens guessed ahead, by a draft or from the text, since the model was loaded",
        lambda resident: resident.stats.drafted_tokens,
    ),
    (
        "spec_decode_num_accepted_tokens",
        "Those of them that were right, since the model was loaded",
        lambda resident: resident.stats.accepted_tokens,
    ),
)


class PoolCollector:
    """Reads one snapshot a scrape."""

    def __init__(self, snapshot: Callable[[], PoolSnapshot], version: str) -> None:
        self._snapshot = snapshot
        self._version = version

    def collect(self) -> Iterable[Metric]:
        snapshot = self._snapshot()
        yield from _of_models(snapshot)
        yield from _of_all(snapshot)
        build = GaugeMetricFamily("portico_build_info", "The version", labels=["version"])
        build.add_metric([self._version], 1)
        yield build


def _of_models(snapshot: PoolSnapshot) -> Iterator[Metric]:
    for name, text, value in _GAUGES:
        family = GaugeMetricFamily(f"portico_{name}", text, labels=["model_name"])
        for resident in snapshot.residents:
            family.add_metric([str(resident.id)], value(resident))
        yield family
    for name, text, value in _COUNTERS:
        counted = CounterMetricFamily(f"portico_{name}", text, labels=["model_name"])
        for resident in snapshot.residents:
            counted.add_metric([str(resident.id)], value(resident))
        yield counted


def _resting(snapshot: PoolSnapshot) -> list[FailingModel]:
    return [model for model in snapshot.failing if model.retry_after > 0]


def _of_all(snapshot: PoolSnapshot) -> Iterator[Metric]:
    for name, text, value in (
        ("memory_budget_bytes", "What all models together may hold", snapshot.memory_budget),
        ("memory_used_bytes", "What they hold, those that leave included", snapshot.memory_used),
        (
            "num_requests_waiting_for_memory",
            "Requests that wait for memory to load their model",
            snapshot.waiting,
        ),
        (
            "engines_hung",
            "Engines that make no progress, and still hold their memory",
            len(snapshot.hung),
        ),
        (
            "models_resting",
            "Models that died and are not loaded again yet",
            len(_resting(snapshot)),
        ),
        ("closing", "1 while the server shuts down", int(snapshot.closing)),
    ):
        yield GaugeMetricFamily(f"portico_{name}", text, value=value)
