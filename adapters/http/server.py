"""uvicorn around the application."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypedDict

import uvicorn
from starlette.types import ASGIApp

Drain = Callable[[], Awaitable[None]]


class TlsOptions(TypedDict, total=False):
    """uvicorn's names for the files; none of them: no TLS."""

    ssl_certfile: Path
    ssl_keyfile: Path | None
    ssl_keyfile_password: str | None


_LAST_WORDS = 5  # seconds for the errors that drained requests are answered with


class _DrainingServer(uvicorn.Server):
    """Runs `drain` beside uvicorn's own shutdown, which would only cancel what is still open."""

    def __init__(self, config: uvicorn.Config, drain: Drain) -> None:
        super().__init__(config)
        self._drain = drain

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        draining = asyncio.ensure_future(self._drain())
        await super().shutdown(sockets)
        await draining


def serve(
    app: ASGIApp,
    host: str,
    port: int,
    *,
    log_config: dict[str, Any],
    grace: float,
    drain: Drain,
    tls: TlsOptions,
) -> None:
    """Serve until SIGINT or SIGTERM. `drain` then refuses what is new, and after `grace` seconds
    ends what is open.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=log_config,
        http="h11",  # httptools takes headers of any size
        ws="none",
        access_log=False,  # portico.requests has a line a request, with its id
        server_header=False,
        h11_max_incomplete_event_size=16 * 1024,
        timeout_graceful_shutdown=math.ceil(grace) + _LAST_WORDS,
        **tls,
    )
    _DrainingServer(config, drain).run()
