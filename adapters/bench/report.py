"""Results as tables for the eye and as JSON for programs."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from adapters.bench.client import Server
from adapters.bench.figures import MEASURES, Figures, Measure, Ratio, Sample, pooled, ratio
from adapters.bench.runner import Results

# By how much mean lengths of answers may differ.
_EVEN = 1.05


@dataclass(frozen=True, slots=True)
class Report:
    """A finished run. The first server is the one that the others are compared with."""

    scenario: str
    settings: Mapping[str, Any]  # what it takes to run it again
    servers: tuple[Server, ...]
    results: Results

    @property
    def failures(self) -> int:
        return sum(count for _, one in self._samples() for count in one.failures.values())

    @property
    def uncounted(self) -> int:
        """Replies whose tokens are guessed from their chunks."""
        return sum(one.uncounted for _, one in self._samples())

    def uneven_stages(self) -> Iterator[str]:
        """Those where the servers' answers differ in length, so that rates say little."""
        for name, by_server in self.results.items():
            wholes = [pooled(rounds) for rounds in by_server.values()]
            lengths = [one.output_tokens / one.replies for one in wholes if one.replies]
            if lengths and max(lengths) > _EVEN * min(lengths):
                told = " and ".join(f"{length:.1f}" for length in lengths)
                yield f"{name}: {told} tokens an answer"

    def failure_lines(self) -> Iterator[str]:
        """For each server and kind of failure: how often, and what one of them said."""
        for server in self.servers:
            whole = pooled([one for name, one in self._samples() if name == server.name])
            for kind, count in sorted(whole.failures.items()):
                detail = whole.details.get(kind)
                yield f"{server.name}: {count} x {kind}" + (f" ({detail})" if detail else "")

    def _samples(self) -> Iterator[tuple[str, Sample]]:
        for by_server in self.results.values():
            for name, rounds in by_server.items():
                for one in rounds:
                    yield name, one


def tables(report: Report) -> Iterator[Table]:
    """One of all stages for a single server; with several, one for each stage."""
    if len(report.servers) == 1:
        (server,) = report.servers
        columns = {name: one[server.name] for name, one in report.results.items()}
        yield _table(f"{report.scenario}: {server.name}", columns, {})
        return
    base = report.servers[0].name
    for name, rounds in report.results.items():
        ratios = {
            f"{base} / {server.name}": (rounds[base], rounds[server.name])
            for server in report.servers[1:]
        }
        yield _table(f"{report.scenario}: {name}", rounds, ratios)


def as_json(report: Report) -> dict[str, Any]:
    """Times are in seconds, rates per second."""
    base = report.servers[0].name
    return {
        "scenario": report.scenario,
        "settings": dict(report.settings),
        "servers": [{"name": s.name, "url": s.url, "model": s.model} for s in report.servers],
        "stages": [
            {
                "name": name,
                "figures": {server: _whole(rounds) for server, rounds in by_server.items()},
                "rounds": {
                    server: [asdict(Figures.of(one)) for one in rounds]
                    for server, rounds in by_server.items()
                },
                "ratios": {
                    server.name: {
                        measure.key: asdict(over)
                        for measure in MEASURES
                        if (over := ratio(measure, by_server[base], by_server[server.name]))
                    }
                    for server in report.servers[1:]
                },
            }
            for name, by_server in report.results.items()
        ],
    }


def number(measure: Measure, value: float | None) -> str:
    """Rates in tokens/s; times in ms below ten seconds, in seconds above."""
    if value is None:
        return "-"
    if measure.unit == "/s":
        return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"  # noqa: PLR2004
    if value < 10:  # noqa: PLR2004
        return f"{value * 1000:,.1f} ms"
    return f"{value:,.1f} s"


def _whole(rounds: Sequence[Sample]) -> dict[str, Any]:
    return asdict(Figures.of(pooled(rounds)))


def _table(
    title: str,
    columns: Mapping[str, Sequence[Sample]],
    ratios: Mapping[str, tuple[Sequence[Sample], Sequence[Sample]]],
) -> Table:
    # Text: a name may look like markup, as [::1]:8000 does.
    table = Table(title=Text(title), title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("")
    for name in (*columns, *ratios):
        table.add_column(Text(name), justify="right")
    figures = [Figures.of(pooled(rounds)) for rounds in columns.values()]
    for measure in MEASURES:
        values = [measure.value(one) for one in figures]
        if any(value is not None for value in values):
            table.add_row(
                f"{measure.label} {'↑' if measure.more_is_better else '↓'}",
                *[number(measure, value) for value in values],
                *[_ratio_text(ratio(measure, *pair)) for pair in ratios.values()],
            )
    for label, counts in _counts(figures):
        table.add_row(label, *counts, *[""] * len(ratios))
    return table


def _counts(figures: Iterable[Figures]) -> Iterator[tuple[str, list[str]]]:
    shown = list(figures)
    if not any(one.replies or one.failures for one in shown):
        return
    yield "requests answered", [f"{one.replies:,}" for one in shown]
    yield "requests failed", [_failed(one) for one in shown]
    yield "prompt tokens", [f"{one.prompt_tokens:,}" for one in shown]
    yield "of them cached", [_share(one.cached_tokens, one.prompt_tokens) for one in shown]
    yield "output tokens", [f"{one.output_tokens:,}" for one in shown]


def _failed(figures: Figures) -> str:
    kinds = [f"{count} x {kind}" for kind, count in sorted(figures.failures.items())]
    return ", ".join(kinds) or "0"


def _share(count: int, of: int) -> str:
    return f"{count:,} ({count / of:.0%})" if of else "-"


def _ratio_text(over: Ratio | None) -> str:
    if over is None:
        return "-"
    if over.lowest == over.highest:
        return f"{over.pooled:.2f}"
    return f"{over.pooled:.2f} ({over.lowest:.2f} to {over.highest:.2f})"
