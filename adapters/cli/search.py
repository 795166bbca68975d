"""`portico search`."""

import asyncio
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from adapters.cli.documents import found_document
from adapters.cli.output import make_console, make_table, size, write_json
from adapters.cli.session import read_settings, told, unrestricted
from adapters.container import Container
from adapters.settings import Settings
from domain.models import FoundModel, ModelId

_NUMBERS = ("Downloads", "Size")


def run(config: Path | None, *, text: str, limit: int, as_json: bool) -> None:
    settings = read_settings(config, {})
    with told():
        found, here = asyncio.run(_search(settings, text, limit))
    if as_json:
        hits = [found_document(model, cached=model.id in here) for model in found]
        write_json({"data": hits})
    elif found:
        make_console().print(_table(found, here))
    else:
        make_console().print(f"No MLX model on the hub matches `{text}`.", markup=False)


async def _search(
    settings: Settings, text: str, limit: int
) -> tuple[tuple[FoundModel, ...], set[ModelId]]:
    """What was found, and what is on this machine, whether it is offered or not."""
    container = Container(settings=unrestricted(settings))
    found = await container.source().search(text, limit)
    return found, {card.id for card in await container.catalog().all()}


def _table(found: tuple[FoundModel, ...], here: set[ModelId]) -> Table:
    table = make_table(
        "Model", "Downloads", "Size", "Quantisation", "Updated", "Here", right=_NUMBERS
    )
    for model in found:
        table.add_row(
            escape(str(model.id)) + (" [dim](gated)[/]" if model.gated else ""),
            f"{model.downloads:,}",
            "?" if model.size is None else size(model.size),
            escape(model.quantization or "-"),
            escape(model.updated[: len("2026-01-31")]),
            "[green]yes[/]" if model.id in here else "-",
        )
    return table
