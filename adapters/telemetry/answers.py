"""Tokens, and the times between them, of answers that have ended and of those under way."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

from application.record import AnswerRecord
from domain.errors import ModelNotFound
from domain.timings import GAP_BOUNDS

_BOUNDS = [*map(str, GAP_BOUNDS), "+Inf"]


@dataclass(slots=True)
class _Totals:
    """Of one model. between: seconds from first tokens to last ones."""

    prompt: int = 0
    generated: int = 0
    queries: int = 0
    hits: int = 0
    between: float = 0.0
    gaps: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))

    def add(self, record: AnswerRecord) -> None:
        self.prompt += record.processed_tokens
        self.generated += record.generated_tokens
        self.queries += record.prompt_tokens
        self.hits += record.cached_tokens
        if record.first_token is not None and record.last_token is not None:
            self.between += record.last_token - record.first_token
            self.gaps = [mine + new for mine, new in zip(self.gaps, record.gaps, strict=True)]

    def copy(self) -> "_Totals":
        return _Totals(
            self.prompt, self.generated, self.queries, self.hits, self.between, self.gaps
        )


class Answers:
    """A collector. Answers under way count as far as they have come, so that rates don't wait for
    the end of a long one.
    """

    def __init__(self) -> None:
        self._ended: dict[str, _Totals] = {}
        self._under_way: set[AnswerRecord] = set()

    def begun(self, record: AnswerRecord) -> None:
        self._under_way.add(record)

    def ended(self, record: AnswerRecord) -> None:
        self._under_way.discard(record)
        if record.prompt_tokens:
            self._ended.setdefault(str(record.model), _Totals()).add(record)

    def collect(self) -> Iterable[Metric]:
        totals = self._totals()
        yield _counter(
            "prompt_tokens",
            "Prompt tokens that were processed, those from the prefix cache included",
            ((name, total.prompt) for name, total in totals.items()),
        )
        yield _counter(
            "generation_tokens",
            "Tokens that were generated",
            ((name, total.generated) for name, total in totals.items()),
        )
        yield _counter(
            "prefix_cache_queries",
            "Prompt tokens that were looked up in the prefix cache",
            ((name, total.queries) for name, total in totals.items()),
        )
        yield _counter(
            "prefix_cache_hits",
            "Prompt tokens that were found in the prefix cache",
            ((name, total.hits) for name, total in totals.items()),
        )
        yield _inter_token_latency(totals)

    def _totals(self) -> dict[str, _Totals]:
        totals = {name: total.copy() for name, total in self._ended.items()}
        for record in self._under_way:
            if record.prompt_tokens:
                totals.setdefault(str(record.model), _Totals()).add(record)
        return totals


def known_name(record: AnswerRecord) -> str:
    """The model's name; empty if it is not here, or the client left before that was known."""
    known = record.leased is not None or (
        record.error is not None and not isinstance(record.error, ModelNotFound)
    )
    return str(record.model) if known else ""


def _counter(name: str, text: str, counts: Iterable[tuple[str, int]]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"portico_{name}", text, labels=["model_name"])
    for model, count in counts:
        family.add_metric([model], count)
    return family


def _inter_token_latency(totals: dict[str, _Totals]) -> HistogramMetricFamily:
    family = HistogramMetricFamily(
        "portico_inter_token_latency_seconds",
        "Between two tokens of an answer",
        labels=["model_name"],
    )
    for model, total in totals.items():
        buckets = list(zip(_BOUNDS, accumulate(total.gaps), strict=True))
        family.add_metric([model], buckets, total.between)
    return family
