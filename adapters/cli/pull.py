"""`portico pull`."""

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

from rich.console import Console

from adapters.cli.documents import progress_document
from adapters.cli.failing import INTERRUPTED, fail
from adapters.cli.output import make_console, write_json
from adapters.cli.progress import Report, bar, json_lines, lines
from adapters.cli.session import read_id, read_settings, told, unrestricted
from adapters.container import Container
from adapters.settings import Settings
from domain.models import ModelCard, ModelId, PullPhase, PullProgress
from domain.sizes import size


def run(config: Path | None, *, model: str, revision: str | None, as_json: bool) -> None:
    settings, wanted = read_settings(config, {}), read_id(model)
    console = make_console()
    with told():
        with reporter(console, wanted, as_json=as_json) as report:
            done = pull(settings, wanted, revision, report)
        card = asyncio.run(find(settings, wanted))
    if as_json:
        document = progress_document(wanted, done) | {"location": str(card.location)}
        write_json(document, indent=None)
    else:
        for line in _outcome(settings, card, done.revision):
            console.print(line, markup=False, soft_wrap=True)


@contextmanager
def reporter(console: Console, model: ModelId, *, as_json: bool) -> Iterator[Report]:
    """How a download is reported on this kind of output."""
    if as_json:
        yield json_lines(model)
    elif console.is_terminal:
        with bar(console) as report:
            yield report
    else:
        yield lines(console)


def pull(settings: Settings, model: ModelId, revision: str | None, report: Report) -> PullProgress:
    """Download a model; the last progress. Ctrl-C ends the program. Raises HubFailed."""
    try:
        return asyncio.run(_pull(settings, model, revision, report))
    except KeyboardInterrupt:
        fail("stopped. The same command goes on from here.", INTERRUPTED)


async def _pull(
    settings: Settings, model: ModelId, revision: str | None, report: Report
) -> PullProgress:
    last = PullProgress(PullPhase.RESOLVING)
    async with aclosing(Container(settings=settings).source().pull(model, revision)) as progresses:
        async for last in progresses:
            report(last)
    return last


async def find(settings: Settings, model: ModelId) -> ModelCard:
    """The model as the catalog has it, offered or not."""
    return await Container(settings=unrestricted(settings)).catalog().find(model)


def _outcome(settings: Settings, card: ModelCard, revision: str) -> Iterator[str]:
    yield f"{card.id} ({size(card.weight_bytes)}) is in {card.location}"
    if card.revision != revision:
        yield f"{revision} is in the cache; what is served is {card.revision}, which `main` names."
    if settings.available_models and str(card.id) not in settings.available_models:
        yield "It is not among your `available_models`; add it, and Portico offers it."
    else:
        yield f"Chat with it: portico chat {card.id}"
