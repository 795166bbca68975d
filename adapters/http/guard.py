"""What a setting forbids, and the size of a body."""

from collections.abc import Callable

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class NotAllowed(Exception):
    """A setting forbids it, to all or to this key."""


def pulls_allowed(allowed: bool) -> Callable[[], None]:
    """A route dependency for what changes the models on the disk. Raises NotAllowed."""

    def check() -> None:
        if not allowed:
            raise NotAllowed(
                "This server neither downloads nor deletes models: `allow_pulls` is false, as it "
                "is by itself where other machines can reach the server."
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
