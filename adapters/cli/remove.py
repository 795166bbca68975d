"""`portico models rm`."""

import asyncio
import sys
from pathlib import Path

import typer

from adapters.cli.failing import FAILED, MISUSED, fail
from adapters.cli.output import make_console, write_json
from adapters.cli.session import opened, read_id, read_settings, told, unrestricted
from adapters.container import Container
from adapters.settings import Settings
from domain.models import ModelId
from domain.sizes import size


def run(config: Path | None, *, models: list[str], yes: bool, as_json: bool) -> None:
    settings = unrestricted(read_settings(config, {}))
    wanted = tuple(dict.fromkeys(read_id(model) for model in models))
    with told():
        sizes = asyncio.run(_sizes(settings, wanted))
        if not yes:
            _ask(sizes)
        freed = asyncio.run(_delete(settings, wanted))
    if as_json:
        deleted = [{"model": str(model), "freed_bytes": count} for model, count in freed.items()]
        write_json({"data": deleted})
    else:
        for model, count in freed.items():
            make_console().print(f"Deleted {model}; {size(count)} are free.", markup=False)


async def _sizes(settings: Settings, models: tuple[ModelId, ...]) -> dict[ModelId, int]:
    """On disk. Raises ModelNotFound before anything is deleted."""
    catalog = Container(settings=settings).catalog()
    cached = {model.id: model.bytes_on_disk for model in (await catalog.disk_use()).models}
    return {
        model: cached[model] if model in cached else (await catalog.find(model)).weight_bytes
        for model in models
    }


def _ask(sizes: dict[ModelId, int]) -> None:
    if not sys.stdin.isatty():
        fail("nobody can be asked; say --yes to delete.", MISUSED)
    named = ", ".join(f"{model} ({size(count)})" for model, count in sizes.items())
    if not typer.confirm(f"Delete {named}?", err=True):
        raise typer.Exit(FAILED)


async def _delete(settings: Settings, models: tuple[ModelId, ...]) -> dict[ModelId, int]:
    """The bytes that each of them freed."""
    async with opened(settings) as container:
        delete = container.delete_model()
        return {model: await delete(model) for model in models}
