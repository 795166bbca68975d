"""`portico models`."""

import asyncio
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from adapters.cli.session import opened, read_settings
from adapters.settings import Settings
from domain.models import ListedModel


def run(config: Path | None, flags: dict[str, Any]) -> None:
    models = asyncio.run(_list(read_settings(config, flags)))
    console = Console()
    if models:
        console.print(_table(models))
    else:
        console.print("No models on this machine are configured or cached.")


async def _list(settings: Settings) -> tuple[ListedModel, ...]:
    async with opened(settings) as container:
        return await container.list_models()()


def _table(models: tuple[ListedModel, ...]) -> Table:
    table = Table("Model", box=None, pad_edge=False)
    table.add_column("Size", justify="right")
    table.add_column("Context", justify="right")
    table.add_column("Location", overflow="fold")
    for model in models:
        card = model.card
        table.add_row(
            str(card.id), _size(card.weight_bytes), f"{card.context_length:,}", str(card.location)
        )
    return table


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"  # noqa: PLR2004
