"""How far a download has come: a bar on a terminal, lines elsewhere, JSON for programs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from adapters.cli.documents import progress_document
from adapters.cli.output import duration, write_json
from domain.models import ModelId, PullPhase, PullProgress
from domain.sizes import size

Report = Callable[[PullProgress], None]

_STEP = 10  # percent between two lines

# Characters, lest the bar jump with every digit.
_WIDTHS = {"phase": 11, "bytes": 18, "speed": 10, "left": 8, "files": 9}


@contextmanager
def bar(console: Console) -> Iterator[Report]:
    """One line that is drawn again and again: phase, bar, bytes, speed, time left, files."""
    first, *others = (
        TextColumn(f"{{task.fields[words][{name}]}}", table_column=Column(min_width=width))
        for name, width in _WIDTHS.items()
    )
    with Progress(first, BarColumn(None), *others, console=console, expand=True) as progress:
        task = progress.add_task("", total=None, words=dict.fromkeys(_WIDTHS, ""))

        def show(now: PullProgress) -> None:
            progress.update(
                task, total=now.bytes_total or None, completed=now.bytes_done, words=_words(now)
            )

        yield show


def lines(console: Console) -> Report:
    """A line for each phase, and for each tenth of the bytes."""
    told: tuple[PullPhase, int] | None = None

    def show(now: PullProgress) -> None:
        nonlocal told
        reached = (now.phase, _percent(now) // _STEP)
        if reached != told:
            told = reached
            words = " · ".join(word for word in _words(now).values() if word)
            console.print(words, markup=False, soft_wrap=True)

    return show


def json_lines(model: ModelId) -> Report:
    """A line for each progress but the last, which is the caller's: it knows where the model is."""

    def show(now: PullProgress) -> None:
        if now.phase is not PullPhase.DONE:
            write_json(progress_document(model, now), indent=None)

    return show


def _words(now: PullProgress) -> dict[str, str]:
    left = now.seconds_left
    moving = now.phase is PullPhase.DOWNLOADING and now.bytes_per_second > 0
    return {
        "phase": now.phase,
        "bytes": f"{size(now.bytes_done)} of {size(now.bytes_total)}" if now.bytes_total else "",
        "speed": f"{size(now.bytes_per_second)}/s" if moving else "",
        "left": "" if left is None else f"{duration(left)} left",
        "files": f"{now.files_done}/{now.files_total} files" if now.files_total else "",
    }


def _percent(now: PullProgress) -> int:
    return 100 * now.bytes_done // now.bytes_total if now.bytes_total else 0
