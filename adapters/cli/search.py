"""`portico search`."""

import asyncio
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from adapters.cli.documents import found_document
from adapters.cli.output import make_console, make_table, write_json
from adapters.cli.session import read_settings, told
from adapters.container import Container
from application.manage_models import SearchHit
from domain.sizes import size

_NUMBERS = ("Downloads", "Size")


def run(config: Path | None, *, text: str, limit: int, as_json: bool) -> None:
    settings = read_settings(config, {})
    with told():
        hits = asyncio.run(Container(settings=settings).search_models()(text, limit))
    if as_json:
        write_json({"data": [found_document(hit.found, cached=hit.here) for hit in hits]})
    elif hits:
        make_console().print(_table(hits))
    else:
        make_console().print(f"No MLX model on the hub matches `{text}`.", markup=False)


def _table(hits: tuple[SearchHit, ...]) -> Table:
    table = make_table(
        "Model", "Downloads", "Size", "Quantisation", "Updated", "Here", right=_NUMBERS
    )
    for hit in hits:
        model = hit.found
        table.add_row(
            escape(str(model.id)) + (" [dim](gated)[/]" if model.gated else ""),
            f"{model.downloads:,}",
            "?" if model.size is None else size(model.size),
            escape(model.quantization or "-"),
            escape(model.updated[: len("2026-01-31")]),
            "[green]yes[/]" if hit.here else "-",
        )
    return table
