"""What the commands' declarations share. Light to import: Typer alone."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

Config = Annotated[
    Path | None,
    typer.Option(help="A TOML file of settings; there models have their own, as `draft_model`."),
]
Backend = Annotated[str | None, typer.Option(help="mlx, or scripted (a deterministic fake).")]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", help="A Hugging Face id or a folder to offer; repeatable."),
]
Budget = Annotated[float | None, typer.Option(help="GB for all loaded models together.")]
CacheSize = Annotated[float | None, typer.Option(help="GB that MLX's buffer cache may keep.")]
Model = Annotated[str, typer.Argument(help="As `portico models` or `portico search` name it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
Url = Annotated[
    str | None,
    typer.Option(envvar="PORTICO_URL", help="The running server. Default: this machine's."),
]


def run(command: str, function: str = "run") -> Callable[..., None]:
    """A command's own code, which is loaded when it runs."""
    code: Callable[..., None] = getattr(import_module(f"adapters.cli.{command}"), function)
    return code
