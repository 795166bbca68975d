"""What every command does first and last: read the settings, build the container, close it."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from tomllib import TOMLDecodeError
from typing import Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

from adapters.cli.failing import MISUSED, fail
from adapters.container import Container
from adapters.settings import Settings
from domain.errors import DomainError, InvalidRequest
from domain.models import ModelId


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
    raise typer.Exit(MISUSED)


def unrestricted(settings: Settings) -> Settings:
    """For all that is on this machine, offered or not."""
    return settings.model_copy(update={"available_models": ()})


def read_id(text: str) -> ModelId:
    """Ends the program when it can't be one."""
    try:
        return ModelId.parse(text)
    except InvalidRequest as error:
        fail(str(error), MISUSED)


@contextmanager
def told() -> Iterator[None]:
    """Failures of the domain end the program."""
    try:
        yield
    except DomainError as error:
        fail(str(error))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Container]:
    """A container whose engines are closed at the end."""
    container = Container(settings=settings)
    try:
        yield container
    finally:
        await container.models().close()
