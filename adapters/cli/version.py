"""`portico version`."""

from importlib.metadata import version

import typer


def run() -> None:
    for name in ("portico-mlx", "mlx", "mlx-lm"):
        typer.echo(f"{name} {version(name)}")
