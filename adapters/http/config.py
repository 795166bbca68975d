"""uvicorn's settings, with connections of our own."""

import ssl
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from adapters.http.connection import ConnectionLimits, connections


class LimitedConfig(uvicorn.Config):
    """TLS is agreed on by our own connections: see tls.py. encrypted: whether it is."""

    def __init__(self, app: ASGIApp, limits: ConnectionLimits, **options: Any) -> None:
        super().__init__(app, **options)
        self._limits = limits
        self.encrypted: ssl.SSLContext | None = None

    def load(self) -> None:
        super().load()
        self.encrypted, self.ssl = self.ssl, None
        self.http_protocol_class = connections(self._limits, self.encrypted)
