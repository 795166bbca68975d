"""The commands for API keys. Light to import."""

from typing import Annotated

import typer

from adapters.cli.options import Json, run

app = typer.Typer()
key_app = typer.Typer(no_args_is_help=True)
app.add_typer(key_app, name="key", help="API keys.")

PerMinute = Annotated[int | None, typer.Option(min=1, help="Default: no limit.")]


@key_app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Of whom or what it is for; it is logged.")],
    requests_per_minute: PerMinute = None,
    tokens_per_minute: PerMinute = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="A model that it may use, and no other; repeatable."),
    ] = None,
    json: Json = False,
) -> None:
    """Make an API key: print it once, and the lines for the settings file, which hold its hash."""
    run("key", "new")(
        name,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
        models=model,
        as_json=json,
    )
