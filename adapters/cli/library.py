"""The commands for the models on this machine, and on the hub. Light to import."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from adapters.cli.options import Config, Json, Model, Models, run

app = typer.Typer()
models_app = typer.Typer(invoke_without_command=True)
app.add_typer(models_app, name="models")


class Bits(StrEnum):
    """What MLX can quantise weights to."""

    TWO, THREE, FOUR, FIVE, SIX, EIGHT = "2", "3", "4", "5", "6", "8"


class GroupSize(StrEnum):
    """How many weights may share a scale."""

    SMALL, MEDIUM, LARGE = "32", "64", "128"


class KvBits(StrEnum):
    """What a KV cache can be quantised to."""

    FOUR, EIGHT = "4", "8"


class Dtype(StrEnum):
    """What is not quantised can be cast to these."""

    FLOAT16, BFLOAT16, FLOAT32 = "float16", "bfloat16", "float32"


@app.command()
def search(
    text: Annotated[str, typer.Argument(help="Part of a name; `qwen3 4bit`, say.")],
    limit: Annotated[int, typer.Option(min=1, max=100, help="The most models to show.")] = 20,
    json: Json = False,
    config: Config = None,
) -> None:
    """Find MLX models on the Hugging Face hub, the most downloaded first."""
    run("search")(config, text=text, limit=limit, as_json=json)


@app.command()
def pull(
    model: Annotated[str, typer.Argument(help="A model of the hub: `owner/name`.")],
    revision: Annotated[
        str | None, typer.Option(help="A branch, tag or commit. Default: the newest.")
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Download a model; a download that was stopped goes on where it was."""
    run("pull")(config, model=model, revision=revision, as_json=json)


@app.command()
def convert(
    source: Annotated[str, typer.Argument(help="A folder, or a model of the hub.")],
    bits: Annotated[Bits, typer.Option(help="Bits of a weight.")] = Bits.FOUR,
    group_size: Annotated[
        GroupSize, typer.Option(help="Weights that share a scale.")
    ] = GroupSize.MEDIUM,
    dtype: Annotated[
        Dtype | None, typer.Option(help="For what is not quantised. Default: as it is.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="The id it gets. Default: the source's, and the bits.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="The folder to write, instead of one in `models_dir`.")
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Quantise a model, into a folder that Portico serves."""
    if name and output:
        raise typer.BadParameter("give --name or --output, not both")
    run("convert")(
        config,
        source=source,
        bits=int(bits.value),
        group_size=int(group_size.value),
        dtype=dtype.value if dtype else None,
        name=name,
        output=output,
        as_json=json,
    )


@models_app.callback(invoke_without_command=True)
def models(
    context: typer.Context,
    model: Models = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """List the models on this machine that can be served, or manage them."""
    if context.invoked_subcommand is None:
        list_models(model, json, config)


@models_app.command("list")
def list_models(model: Models = None, json: Json = False, config: Config = None) -> None:
    """List the models on this machine that can be served."""
    run("models")(config, {"available_models": model or None}, as_json=json)


@models_app.command()
def show(model: Model, json: Json = False, config: Config = None) -> None:
    """All that is known of a model: what it can do, its share of the disk, the memory it needs."""
    run("models", "show")(config, model=model, as_json=json)


@models_app.command()
def estimate(
    model: Model,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens of a request. Default: as it is set.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Requests of full length at once.")
    ] = None,
    kv_bits: Annotated[KvBits | None, typer.Option(help="Quantise the KV cache.")] = None,
    check: Annotated[bool, typer.Option(help="Exit with 3 if it can never fit.")] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Say what memory a model would need, and whether it fits the budget."""
    run("estimate")(
        config,
        model=model,
        context=context,
        concurrency=concurrency,
        kv_bits=int(kv_bits.value) if kv_bits else None,
        check=check,
        as_json=json,
    )


@models_app.command()
def rm(
    model: Annotated[list[str], typer.Argument(help="As `portico models` names them.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Delete models: downloads, unfinished ones too, and conversions."""
    run("remove")(config, models=model, yes=yes, as_json=json)
