"""`portico models`, `list` and `show`."""

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from adapters.cli.documents import cached_document, estimate_document, listed_document
from adapters.cli.output import facts, make_console, make_table, moment, write_json
from adapters.cli.session import opened, read_id, read_settings, told
from adapters.container import Container
from adapters.settings import Settings
from domain.errors import DomainError
from domain.models import CachedModel, ListedModel, ModelId
from domain.residency import Estimate
from domain.sizes import size


def run(config: Path | None, flags: dict[str, Any], *, as_json: bool) -> None:
    with told():
        models = asyncio.run(_list(read_settings(config, flags)))
    if as_json:
        write_json({"data": [listed_document(model) for model in models]})
    elif models:
        make_console().print(_table(models))
    else:
        make_console().print("No models on this machine are configured or cached.")


def show(config: Path | None, *, model: str, as_json: bool) -> None:
    settings = read_settings(config, {})
    with told():
        listed, cached, estimate = asyncio.run(_show(settings, read_id(model)))
    if as_json:
        write_json(
            listed_document(listed)
            | {
                "disk": cached and cached_document(cached),
                "estimate": estimate_document(estimate)
                if isinstance(estimate, Estimate)
                else {"error": str(estimate)},
            }
        )
    else:
        make_console().print(_facts(listed, cached))
        make_console().print(f"\n{_text(estimate)}", markup=False, soft_wrap=True)


async def _list(settings: Settings) -> tuple[ListedModel, ...]:
    async with opened(settings) as container:
        return await container.list_models()()


async def _show(
    settings: Settings, model: ModelId
) -> tuple[ListedModel, CachedModel | None, Estimate | DomainError]:
    async with opened(settings) as container:
        described = await container.describe_models().one(model)
        disk = await container.catalog().disk_use()
        cached = next((cached for cached in disk.models if cached.id == model), None)
        return described.listed, cached, await _estimate(container, model)


async def _estimate(container: Container, model: ModelId) -> Estimate | DomainError:
    """A model that can't be loaded can still be shown."""
    try:
        return await container.models().estimate(model)
    except DomainError as error:
        return error


def _text(estimate: Estimate | DomainError) -> str:
    return estimate.text if isinstance(estimate, Estimate) else str(estimate)


def _table(models: tuple[ListedModel, ...]) -> Table:
    table = make_table(
        "Model", "Size", "Quantisation", "Context", "Location", right=("Size", "Context")
    )
    for model in models:
        card = model.card
        table.add_row(
            escape(str(card.id)),
            size(card.weight_bytes),
            escape(card.quantization or "-"),
            f"{model.context_length:,}",
            escape(str(card.location)),
        )
    return table


def _facts(listed: ListedModel, cached: CachedModel | None) -> Table:
    card = listed.card
    able = [name.replace("_", " ") for name, can in asdict(card.capabilities).items() if can]
    return facts(
        {
            "Model": card.id,
            "Size": size(card.weight_bytes),
            "Quantisation": card.quantization or "none",
            "Architecture": card.architecture or None,
            "Context": f"{listed.context_length:,} tokens",
            "Its own": f"{card.context_length:,} tokens"
            if card.context_length != listed.context_length
            else None,
            "Capabilities": ", ".join(able) or "none (no chat template)",
            "Revision": card.revision or None,
            "Location": card.location,
            "On disk": cached and size(cached.bytes_on_disk),
            "Last used": cached and moment(cached.last_used),
        }
    )
