"""What every command does first and last: read the settings, build the container, close it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from adapters.container import Container
from adapters.settings import Settings


def read_settings(config: Path | None, flags: dict[str, Any]) -> Settings:
    """Ends the program, with the reason, when they are wrong."""
    try:
        return Settings.load(config, **flags)
    except ValidationError as error:
        for problem in error.errors():
            name = ".".join(str(step) for step in problem["loc"])
            typer.echo(f"portico: setting `{name}`: {problem['msg']}", err=True)
    except (OSError, SettingsError, TOMLDecodeError, UnicodeDecodeError) as error:
        typer.echo(f"portico: the settings can't be read: {error}", err=True)
    raise typer.Exit(2)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Container]:
    """A container whose engines are closed at the end."""
    container = Container(settings=settings)
    try:
        yield container
    finally:
        await container.models().close()
