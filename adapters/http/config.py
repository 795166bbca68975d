"""uvicorn's settings, with connections of our own."""

import ssl
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from adapters.http.connection import ConnectionLimits, connections
from adapters.http.request_log import RequestSeen


class LimitedConfig(uvicorn.Config):
    """TLS is agreed on by our own connections: see tls.py. encrypted: whether it is. seen: is told
    of requests that connections refuse by themselves.
    """

    def __init__(
        self, app: ASGIApp, limits: ConnectionLimits, seen: RequestSeen, **options: Any
    ) -> None:
        super().__init__(app, **options)
        self.limits = limits
        self._seen = seen
        self.encrypted: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.encrypted, self.ssl = self.ssl, None
        self.http_protocol_class = connections(self.limits, self.encrypted, self._seen)
