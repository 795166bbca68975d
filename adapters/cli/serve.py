"""`portico serve`."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from adapters.cli.security import check_tls, key_ring, refuse_open_bind, tls_options
from adapters.cli.session import read_settings, told
from adapters.container import Container
from adapters.http.app import HttpOptions, UseCases, create_app
from adapters.http.connection import ConnectionLimits
from adapters.http.management.routes import Management
from adapters.http.openai.meta import DialectOptions
from adapters.http.server import serve, server_config
from adapters.isolated.process import kill_all
from adapters.settings import Settings
from adapters.telemetry.logs import logging_config
from domain.hosts import HostAllowlist
from domain.limits import RequestLimits
from domain.models import ModelId

logger = logging.getLogger("portico.settings")


def run(config: Path | None, flags: dict[str, Any]) -> None:
    settings = read_settings(config, flags)
    refuse_open_bind(settings)
    check_tls(settings)
    container = Container(settings=settings)
    with told():
        app = application(container)
    web = server_config(
        app,
        settings.host,
        settings.port,
        connection_limits(settings),
        container.request_seen(),
        log_config=logging_config(settings.log_format, settings.log_level),
        **tls_options(settings),
    )
    for name in settings.unknown_variables():
        logger.warning("%s is set, but there is no such setting", name)
    grace = settings.shutdown_grace
    serve(web, lambda: drain(container, grace), kill_all, grace)


def connection_limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(
        max_connections=settings.max_connections,
        max_header_bytes=int(settings.max_header_kb * 1024),
        header_timeout=settings.header_timeout,
        body_timeout=settings.body_timeout,
        write_timeout=settings.write_timeout,
        keep_alive_timeout=settings.keep_alive_timeout,
    )


def _dialect_options(settings: Settings) -> DialectOptions:
    return DialectOptions(
        settings.offered_default,
        settings.first_event_patience,
        settings.max_choices,
        settings.max_batch_size + settings.max_waiting,
        settings.request_timeout,
        RequestLimits(
            settings.max_prompt_chars, settings.max_schema_chars, settings.max_schema_depth
        ),
    )


async def drain(container: Container, grace: float) -> None:
    """Downloads stop at once, and can be resumed; answers get `grace` seconds to finish, and loads
    that nobody waits for any more no longer than that.
    """
    await asyncio.gather(container.pulls().close(), container.models().close(grace, grace))


def application(container: Container) -> FastAPI:
    """The HTTP application over a container; the pool and the downloads live as long as it."""
    settings = container.settings()
    pool, metrics, tracing = container.models(), container.metrics(), container.tracing()
    pinned = [ModelId.parse(name) for name in settings.pinned_models]
    preload = container.preload_models()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        container.pulls().recover()
        preloading = asyncio.create_task(preload(pinned))
        yield
        preloading.cancel()
        await asyncio.wait([preloading])
        await asyncio.gather(container.pulls().close(), container.models().close())
        if tracing:
            await asyncio.to_thread(tracing.close)

    use_cases = UseCases(
        container.complete_chat(),
        container.complete_text(),
        container.refuse_when_full(),
        container.list_models(),
        container.get_model(),
        Management(
            pool,
            container.describe_models(),
            container.delete_model(),
            container.pulls(),
            container.search_models(),
            container.catalog().disk_use,
        ),
        starting=lambda: not preload.done,
        metrics=metrics.page if metrics else None,
    )
    options = HttpOptions(
        dialect=_dialect_options(settings),
        keys=key_ring(settings),
        hosts=HostAllowlist.of(settings.host, settings.allowed_hosts),
        cors_origins=settings.cors_origins,
        max_header_bytes=int(settings.max_header_kb * 1024),
        max_body_bytes=int(settings.max_body_mb * 1e6),
        max_body_values=settings.max_body_values,
        allow_pulls=settings.offers_pulls,
    )

    app = create_app(use_cases, options, lifespan, container.request_seen())
    if tracing:
        app.add_middleware(tracing.instrument)
    return app
