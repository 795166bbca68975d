"""A picture of servers side by side. Needs matplotlib, so it is imported only when asked for."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from adapters.bench.figures import MEASURES, Figures, pooled
from adapters.bench.report import Report

matplotlib.use("Agg")  # files only; a display may not be there

_PANELS = (
    ("output_rate", None, "output tokens/s (more is better)", 1),
    ("first_token_median", "first_token_worst", "first token, median and worst, ms", 1000),
    ("gap_median", "gap_p99", "between tokens, median and 99th percentile, ms", 1000),
    ("gap_worst", None, "between tokens, worst, ms", 1000),
)

_BY_KEY = {measure.key: measure.value for measure in MEASURES}


def draw(report: Report, file: Path) -> None:
    """Writes a PNG. Raises OSError."""
    stages = list(report.results)
    figure = Figure(figsize=(max(9.0, 1.6 * len(stages) * len(report.servers)), 7.0))
    for axes, (key, upper, title, scale) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
        _panel(axes, report, key, upper, scale)
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(stages)), [_wrapped(stage) for stage in stages], fontsize=8)
        axes.grid(axis="y", alpha=0.3)
        axes.set_axisbelow(True)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper right", ncols=len(labels), frameon=False)
    figure.suptitle(f"portico bench {report.scenario}", x=0.02, ha="left")
    figure.tight_layout()
    figure.savefig(file, format="png", dpi=120)


def _panel(axes: Axes, report: Report, key: str, upper: str | None, scale: float) -> None:
    width = 0.8 / len(report.servers)
    for place, server in enumerate(report.servers):
        shown = [Figures.of(pooled(by[server.name])) for by in report.results.values()]
        heights = _values(shown, key, scale)
        middle = place * width - 0.4 + width / 2
        positions = [stage + middle for stage in range(len(shown))]
        axes.bar(positions, heights, width * 0.95, label=server.name)
        if upper:
            rest = [
                max(0.0, top - height)
                for top, height in zip(_values(shown, upper, scale), heights, strict=True)
            ]
            axes.errorbar(
                positions,
                heights,
                yerr=([0.0] * len(rest), rest),
                fmt="none",
                ecolor="black",
                elinewidth=1,
                capsize=3,
            )


def _values(figures: Sequence[Figures], key: str, scale: float) -> list[float]:
    """Nothing is drawn where there is no figure."""
    return [(_BY_KEY[key](one) or 0.0) * scale for one in figures]


def _wrapped(stage: str) -> str:
    return stage.replace(": ", "\n").replace(", ", "\n")
