"""The commands for a server that runs. Light to import."""

from typing import Annotated

import typer

from adapters.cli.options import Config, Json, Model, Url, run

app = typer.Typer()


@app.command()
def ps(url: Url = None, json: Json = False, config: Config = None) -> None:
    """Show what a running server holds in memory, and what it is doing."""
    run("server", "ps")(config, url=url, as_json=json)


@app.command()
def load(
    model: Model,
    pin: Annotated[bool, typer.Option("--pin", help="Keep it in memory for good.")] = False,
    no_wait: Annotated[
        bool, typer.Option("--no-wait", help="Fail rather than wait for busy memory.")
    ] = False,
    url: Url = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Have a running server load a model before anyone asks for it."""
    run("server", "load")(config, model=model, pin=pin, wait=not no_wait, url=url, as_json=json)


@app.command()
def unload(
    model: Model,
    force: Annotated[
        bool, typer.Option("--force", help="End the requests that it is answering.")
    ] = False,
    url: Url = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Have a running server free a model's memory."""
    run("server", "unload")(config, model=model, force=force, url=url, as_json=json)
