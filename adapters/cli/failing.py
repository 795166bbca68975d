"""How a command ends that can't go on: with one line about why, and an exit code."""

from typing import NoReturn

import typer

FAILED, MISUSED, INTERRUPTED = 1, 2, 130


def fail(reason: str, code: int = FAILED) -> NoReturn:
    typer.echo(f"portico: {' '.join(reason.split())}", err=True)
    raise typer.Exit(code)
