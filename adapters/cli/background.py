"""The commands for a server that the system looks after. Light to import."""

from typing import Annotated

import typer

from adapters.cli.options import Config, Json, run

app = typer.Typer()
service_app = typer.Typer(no_args_is_help=True)
app.add_typer(
    service_app,
    name="service",
    help="A server that starts with your session: launchd, systemd.",
)


@service_app.command("install")
def install(
    config: Config = None,
    only_print: Annotated[
        bool, typer.Option("--print", help="Write the unit to standard output; change nothing.")
    ] = False,
) -> None:
    """Install and start it, with the settings file that `portico serve` would read here."""
    run("service", "install")(config, only_print=only_print)


@service_app.command("uninstall")
def uninstall() -> None:
    """Stop it, after the answers that are under way, and take it out."""
    run("service", "uninstall")()


@service_app.command("status")
def status(json: Json = False) -> None:
    """Say whether it is installed, and runs; the exit code is 3 if not."""
    run("service", "status")(as_json=json)
