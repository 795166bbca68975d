"""`portico version`."""

from importlib.metadata import PackageNotFoundError, version

import typer


def run() -> None:
    for name in ("portico-mlx", "mlx", "mlx-lm"):
        typer.echo(f"{name} {_version(name)}")


def _version(name: str) -> str:
    """On Linux MLX comes with an extra."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
