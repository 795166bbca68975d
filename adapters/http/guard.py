"""Who may ask, and how much: the API key and the size of a body."""

import hmac
from collections.abc import Callable

from fastapi import HTTPException, Request
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WrongKey(Exception):
    """No API key came with the request, or a wrong one."""


def bearer_key(key: SecretStr) -> Callable[[Request], None]:
    """A router dependency: `Authorization: Bearer` and the key. Raises WrongKey."""
    expected = key.get_secret_value().encode()

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are latin-1, and compare_digest takes only bytes without complaint.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), expected):
            raise WrongKey("Incorrect API key provided.")

    return check


class LimitBody:
    """Stops reading a body that is too large, whatever its Content-Length says."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        read = 0

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._max_bytes:
                # FastAPI takes any other exception amid a body for a parsing error.
                raise HTTPException(
                    413,
                    f"The body is larger than {self._max_bytes} bytes.",
                    {"Connection": "close"},
                )
            return message

        await self._app(scope, limited, send)
