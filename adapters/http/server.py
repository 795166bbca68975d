"""uvicorn around the application."""

import gc
import logging
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

from starlette.types import ASGIApp

from adapters.http.config import LimitedConfig
from adapters.http.connection import ConnectionLimits
from adapters.http.draining import Abandon, Drain, DrainingServer
from adapters.http.request_log import RequestSeen


class TlsOptions(TypedDict, total=False):
    """uvicorn's names for the files; none of them: no TLS."""

    ssl_certfile: Path
    ssl_keyfile: Path | None
    ssl_keyfile_password: str | None


logger = logging.getLogger("portico.http")

_GARBAGE = (5_000, 5, 5)  # objects between two looks at the young; 700 are a few requests
# asyncio accepts up to its listeners' backlog before any connection is looked at, and when it runs
# out of files it logs as often. `DrainingServer` gives the system its backlog back.
_ACCEPTED_AT_ONCE = 512
_OTHER_FILES = _ACCEPTED_AT_ONCE + 256  # that are open at once: of models, downloads, the log


def server_config(
    app: ASGIApp,
    host: str,
    port: int,
    limits: ConnectionLimits,
    seen: RequestSeen,
    **options: Any,
) -> LimitedConfig:
    """uvicorn's settings for Portico; `options` are more of them."""
    return LimitedConfig(
        app,
        limits,
        seen,
        host=host,
        port=port,
        http="h11",
        ws="none",
        access_log=False,  # portico.requests has a line a request, with its id
        server_header=False,
        proxy_headers=False,  # they decide nothing
        backlog=_ACCEPTED_AT_ONCE,
        h11_max_incomplete_event_size=limits.max_header_bytes,
        timeout_keep_alive=limits.keep_alive_timeout,
        **options,
    )


def serve(config: LimitedConfig, drain: Drain, abandon: Abandon, grace: float) -> None:
    """Serve until SIGINT or SIGTERM. `drain` then refuses what is new, and after `grace` seconds
    ends what is open; a second signal calls `abandon` and ends the program at once.
    """
    wanted = config.limits.max_connections
    allowed = allow_files(wanted + _OTHER_FILES)
    fit = max(allowed - _OTHER_FILES, allowed // 4)
    if fit < wanted:
        text = "%d open files are allowed, so %d connections are taken and not %d"
        logger.warning(text + " (`max_connections`)", allowed, fit, wanted)
        config.limits = replace(config.limits, max_connections=fit)
    gc.freeze()  # what is here by now stays; to look through all of it stops every stream for 0.1 s
    gc.set_threshold(*_GARBAGE)
    DrainingServer(config, drain, abandon, grace).run()


def allow_files(wanted: int) -> int:
    """How many may be open. Each connection is one, and macOS allows a program 256 unless it
    asks.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return wanted
    asked = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (asked, most))
    except (OSError, ValueError):  # macOS has an end of its own, below the one that it tells
        return allowed
    return asked
