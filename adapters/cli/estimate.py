"""`portico models estimate`."""

import asyncio
from pathlib import Path

import typer
from rich.table import Table

from adapters.cli.documents import estimate_document
from adapters.cli.output import facts, make_console, write_json
from adapters.cli.session import opened, read_id, read_settings, told
from adapters.settings import Settings
from domain.models import ModelId
from domain.residency import Estimate, Fit
from domain.sizes import size

_NEVER_FITS = 3  # the exit code


def run(
    config: Path | None,
    *,
    model: str,
    context: int | None,
    concurrency: int | None,
    kv_bits: int | None,
    check: bool,
    as_json: bool,
) -> None:
    settings = read_settings(config, {})
    with told():
        estimate = asyncio.run(_estimate(settings, read_id(model), context, concurrency, kv_bits))
    if as_json:
        write_json(estimate_document(estimate))
    else:
        console = make_console()
        console.print(_facts(estimate))
        console.print(f"\n{estimate.text}", markup=False, soft_wrap=True)
    if check and estimate.fit is Fit.NEVER:
        raise typer.Exit(_NEVER_FITS)


async def _estimate(
    settings: Settings,
    model: ModelId,
    context: int | None,
    concurrency: int | None,
    kv_bits: int | None,
) -> Estimate:
    async with opened(settings) as container:
        return await container.models().estimate(model, context, concurrency, kv_bits)


def _facts(estimate: Estimate) -> Table:
    need, plan = estimate.need, estimate.plan
    return facts(
        {
            "Model": estimate.model,
            "Weights": size(need.weights),
            "KV cache": f"{size(need.kv_cache)} ({plan.concurrency} x {plan.context_length:,} "
            f"tokens{f', {plan.kv_bits}-bit' if plan.kv_bits else ''})",
            "Prefill": size(need.prefill),
            "Needed": size(need.total),
            "Budget": size(estimate.budget),
            "Longest context": f"{estimate.longest_context:,} of {estimate.own_context:,} tokens",
        }
    )
