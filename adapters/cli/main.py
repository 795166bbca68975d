"""The `portico` command. Light to import: what a command needs is loaded when it runs."""

from typing import Annotated, Any

import typer

from adapters.cli import background, keyring, library, measure, remote
from adapters.cli.options import Backend, Budget, CacheSize, Config, Models, run

app = typer.Typer(
    name="portico",
    help="The OpenAI-compatible inference server for Apple's MLX.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take longer to import than all the rest of the help
)


@app.command()
def serve(  # noqa: PLR0913, PLR0917 - one for each flag
    host: Annotated[str | None, typer.Option(help="Default: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Default: 8000.")] = None,
    model: Models = None,
    default_model: Annotated[
        str | None, typer.Option(help="For requests that name no model.")
    ] = None,
    backend: Backend = None,
    memory_budget_gb: Budget = None,
    max_cache_size_gb: CacheSize = None,
    max_batch_size: Annotated[
        int | None, typer.Option(help="Requests that decode together. Default: 32.")
    ] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
    config: Config = None,
) -> None:
    """Serve models over HTTP, in OpenAI's API."""
    flags: dict[str, Any] = {
        "host": host,
        "port": port,
        "available_models": model or None,
        "default_model": default_model,
        "backend": backend,
        "memory_budget_gb": memory_budget_gb,
        "max_cache_size_gb": max_cache_size_gb,
        "max_batch_size": max_batch_size,
        "log_level": log_level,
    }
    run("serve")(config, flags)


@app.command()
def chat(
    model: Annotated[str | None, typer.Argument(help="Default: the default model.")] = None,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.0,
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    think: Annotated[bool, typer.Option(help="Let the model think first, if it can.")] = False,
    backend: Backend = None,
    config: Config = None,
) -> None:
    """Chat with a model in the terminal; no server is needed."""
    run("chat")(
        config,
        {"backend": backend},
        model=model,
        system=system,
        temperature=temperature,
        max_tokens=max_tokens,
        think=think,
    )


app.add_typer(library.app)
app.add_typer(remote.app)
app.add_typer(background.app)
app.add_typer(keyring.app)
app.add_typer(measure.app)


@app.command()
def version() -> None:
    """Print the versions of Portico and of what it stands on."""
    run("version")()


def main() -> None:
    """The entry point of the `portico` script."""
    app()


if __name__ == "__main__":
    main()
