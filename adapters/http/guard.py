"""Who may ask, and for how much: the API key, what a setting forbids, the size of a body."""

import hmac
from collections.abc import Callable

from fastapi import HTTPException, Request
from fastapi.security import HTTPBearer
from pydantic import SecretStr
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class WrongKey(Exception):
    """No API key came with the request, or a wrong one."""


# For the description of the API alone, so that /docs has a field for the key.
described_as_bearer = HTTPBearer(
    auto_error=False, scheme_name="api_key", description="The setting `api_key`"
)


class NotAllowed(Exception):
    """A setting forbids it, whoever asks."""


def bearer_key(key: SecretStr) -> Callable[[Request], None]:
    """A router dependency: `Authorization: Bearer` and the key. Raises WrongKey."""
    expected = key.get_secret_value().encode()

    def check(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        # Headers are latin-1, and compare_digest takes only bytes without complaint.
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode("latin-1"), expected):
            raise WrongKey("Incorrect API key provided.")

    return check


def pulls_allowed(allowed: bool) -> Callable[[], None]:
    """A route dependency for what changes the models on the disk. Raises NotAllowed."""

    def check() -> None:
        if not allowed:
            raise NotAllowed(
                "This server neither downloads nor deletes models: `allow_pulls` is false."
            )

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
