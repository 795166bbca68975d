"""A name for every request, on its answer and in the log."""

import logging
import time
import uuid

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.http.trace import trace

logger = logging.getLogger("portico.requests")


class RequestLog:
    """A unique `x-request-id` on every answer, which clients show, and one line a request.

    last_resort: what answers when the application failed before it began to.
    """

    def __init__(self, app: ASGIApp, last_resort: ASGIApp) -> None:
        self._app = app
        self._last_resort = last_resort

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = f"req_{uuid.uuid4().hex}"
        began = time.monotonic()
        status = 0  # no answer was begun: the client left

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - the last resort
            logger.error("%s failed: %s", request_id, trace(error))
            if status == 0:
                await self._last_resort(scope, receive, send_with_id)
        finally:
            path = ascii(scope["path"])[1:-1]  # a path can't forge a line
            seconds = time.monotonic() - began
            logger.info("%s %s %s %d %.3fs", request_id, scope["method"], path, status, seconds)
