"""A name for every request, on its answer and in the log."""

import logging
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.http.request_facts import RequestFacts, current_request
from application.trace import wordless

logger = logging.getLogger("portico.requests")

RequestSeen = Callable[[RequestFacts], None]

REFUSED = "refused"  # in the state of requests that their connection answers: the facts of that

CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it

_FAILED = 400  # and above


def unseen(facts: RequestFacts) -> None:
    """Nobody counts."""


def tell(facts: RequestFacts, seen: RequestSeen) -> None:
    """The request's line, and whoever counts; once, at its end."""
    if facts.status >= _FAILED and facts.status != CLIENT_CLOSED_REQUEST:
        facts.code = facts.code or f"http_{facts.status}"
    said = facts.method, facts.path, facts.status, facts.id
    logger.info("%s %s %d %s", *said, extra=facts.fields())
    seen(facts)


class RequestLog:
    """A unique `x-request-id` on every answer, which clients show, and one line a request.

    last_resort: what answers when the application failed before it began to. seen: is told of
    every request, once it has been answered.
    """

    def __init__(self, app: ASGIApp, last_resort: ASGIApp, seen: RequestSeen) -> None:
        self._app = app
        self._last_resort = last_resort
        self._seen = seen

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = ascii(scope["path"])[1:-1]  # a path can't forge a line
        facts = RequestFacts(f"req_{uuid.uuid4().hex}", scope["method"], path)

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = facts.id
            await send(message)

        token = current_request.set(facts)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception as error:
            logger.error("%s failed", facts.id, exc_info=wordless(error))
            facts.code = facts.code or "server_error"
            if facts.status == 0:
                await self._last_resort(scope, receive, send_with_id)
        finally:
            current_request.reset(token)
            facts.handler = getattr(scope.get("route"), "path", "")
            refused: RequestFacts | None = scope.get("state", {}).get(REFUSED)
            if refused:  # what the client was told, not what the application would have said
                facts.id, facts.status, facts.code = refused.id, refused.status, refused.code
            tell(facts, self._seen)
