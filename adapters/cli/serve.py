"""`portico serve`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from adapters.cli.session import read_settings
from adapters.container import Container
from adapters.http.app import HttpOptions, UseCases, create_app
from adapters.http.openai.meta import DialectOptions
from adapters.http.server import serve


def run(config: Path | None, flags: dict[str, Any]) -> None:
    settings = read_settings(config, flags)
    container = Container(settings=settings)
    serve(
        application(container),
        settings.host,
        settings.port,
        log_level=settings.log_level,
        grace=settings.shutdown_grace,
        drain=lambda: container.models().close(settings.shutdown_grace),
    )


def application(container: Container) -> FastAPI:
    """The HTTP application over a container; the pool lives as long as it."""
    settings, models = container.settings(), container.models()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await models.close()

    use_cases = UseCases(
        container.complete_chat(),
        container.complete_text(),
        container.list_models(),
        container.get_model(),
        models.snapshot,
    )
    options = HttpOptions(
        DialectOptions(
            settings.offered_default, settings.first_event_patience, settings.max_choices
        ),
        settings.hang_timeout,
        settings.api_key,
        int(settings.max_body_mb * 1e6),
    )
    return create_app(use_cases, options, lifespan)
