"""How large a request may be, and how many may come: refused before more of it is read."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from fastapi import HTTPException
from starlette.datastructures import MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.http.connection import CROWDED
from adapters.http.errors import WireError
from adapters.http.json_values import ValueCount

_LITTLE = 2**16  # bytes of a body that are sooner read than a new connection is made
_LINGER_SECONDS = 1.0  # that a client gets to read why it was refused


class LimitConnections:
    """Answers what comes by a connection too many; `open_routes` are for all."""

    def __init__(self, app: ASGIApp, open_routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        crowded = scope["type"] == "http" and CROWDED in scope.get("state", {})
        if crowded and not any(r.matches(scope)[0] is Match.FULL for r in self._open_routes):
            await _crowded().response()(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _crowded() -> WireError:
    text = "Too many connections are open (`max_connections`); please try again."
    headers = {"Retry-After": "1", "Connection": "close"}
    return WireError(503, text, "server_error", None, "too_many_connections", headers)


class LimitHead:
    """h11 measures heads that come in parts; this measures those that came whole."""

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._app
        if scope["type"] == "http":
            size = len(scope["raw_path"]) + len(scope["query_string"])
            size += sum(len(name) + len(value) + 4 for name, value in scope["headers"])
            if size > self._max_bytes:
                text = f"The headers are larger than {self._max_bytes} bytes."
                answer = WireError(431, text, code="headers_too_large").response()
        await answer(scope, receive, send)


class BodyTooLarge(HTTPException):
    """It was not announced; FastAPI takes any other exception amid a body for a parsing error."""

    def __init__(self, text: str) -> None:
        super().__init__(413, text)


def body_too_large(error: BodyTooLarge) -> WireError:
    return WireError(413, error.detail, code="body_too_large")


class LimitBody:
    """Refuses a body that says that it is too large, and stops reading one that turns out so.

    max_values: of JSON, counted as `ValueCount` does.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_values: int) -> None:
        self._app = app
        self._max_values = max_values
        self._max_bytes = max_bytes
        self._large = f"The body is larger than {max_bytes} bytes (`max_body_mb`)."
        self._intricate = f"The body holds more than {max_values} values (`max_body_values`)."

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _declared(scope) > self._max_bytes:
            refusal = body_too_large(BodyTooLarge(self._large))
            await refusal.response()(scope, receive, send)
            return
        read, values = 0, ValueCount()

        async def limited() -> Message:
            nonlocal read
            message = await receive()
            body = message.get("body", b"")
            read += len(body)
            values.feed(body)
            if read > self._max_bytes:
                raise BodyTooLarge(self._large)
            if values.total > self._max_values:
                raise BodyTooLarge(self._intricate)
            return message

        await self._app(scope, limited, send)


class HangUp:
    """Closes the connection of who is answered before the whole body has come, gently.

    The rest of the body is not a second request, and is not worth reading. But who closes while
    data is coming sends a reset, which takes the answer back from a client that has not read it.
    So the answer goes out whole, and the connection ends a moment later.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _has_little(scope):
            await self._app(scope, receive, send)
            return
        more, hangs_up = True, False

        async def reading() -> Message:
            nonlocal more
            message = await receive()
            more = message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            nonlocal hangs_up
            if message["type"] == "http.response.start" and more:
                hangs_up = True
                MutableHeaders(scope=message)["Connection"] = "close"
            elif hangs_up and not message.get("more_body", False):
                await send({**message, "more_body": True})
                await _read_on(scope, receive)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, reading, sending)


async def _read_on(scope: Scope, receive: Receive) -> None:
    if _header(scope, b"expect"):
        return  # it waits to be asked for the body, and now never is
    with suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while (await receive()).get("more_body"):
                pass


def _has_little(scope: Scope) -> bool:
    return not _header(scope, b"transfer-encoding") and _declared(scope) <= _LITTLE


def _declared(scope: Scope) -> int:
    """What h11 lets pass is one number of at most 20 digits."""
    return int(_header(scope, b"content-length") or 0)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for key, value in scope["headers"] if key == name), b"")
