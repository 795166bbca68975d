"""API keys: the gate that asks for one before anything of a request is read, and who came by it."""

import hashlib
import hmac
from collections.abc import Iterable, Sequence

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.http.errors import WireError, render_error
from adapters.http.guard import NotAllowed
from adapters.http.request_facts import note_key
from application.callers import Caller
from domain.access import Access
from domain.errors import RateLimited

_WRONG_KEY = WireError(
    401,
    "Incorrect API key provided.",
    code="invalid_api_key",
    headers={"WWW-Authenticate": "Bearer"},
)


_ANYONE = Caller(Access(), lambda: 0.0)  # without limits: it has no state


class KeyRing:
    """Callers by the SHA-256 digests of their keys, all that is known of a key here."""

    def __init__(self, callers: Iterable[tuple[bytes, Caller]] = ()) -> None:
        self._callers = tuple(callers)

    def __bool__(self) -> bool:
        return bool(self._callers)

    def owner(self, key: bytes) -> Caller | None:
        """Whose key it is. Takes as long for any key that is wrong."""
        digest = hashlib.sha256(key).digest()
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(known, digest):
                found = caller
        return found


class KeyGate:
    """Lets through who has a key, and what is open to all; whatever is added later is closed.

    open_routes: told apart by the router's own matching, never by what a URL looks like.
    """

    def __init__(self, app: ASGIApp, keys: KeyRing, open_routes: Sequence[BaseRoute]) -> None:
        self._app = app
        self._keys = keys
        self._open_routes = open_routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or self._is_open(scope):
            await self._app(scope, receive, send)
            return
        key = _presented(scope)
        caller = self._keys.owner(key) if key else None
        if caller is None:
            await _WRONG_KEY.response()(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        note_key(caller.access.name)
        send = _telling_allowances(caller, send)
        try:
            caller.begin_request()
        except RateLimited as error:
            await render_error(error).response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_open(self, scope: Scope) -> bool:
        return any(route.matches(scope)[0] is Match.FULL for route in self._open_routes)


def caller_of(request: Request) -> Caller:
    """Where no key is asked for, somebody who may do anything."""
    caller: Caller = getattr(request.state, "caller", _ANYONE)
    return caller


def whole_server(request: Request) -> None:
    """A route dependency for what concerns all models. Raises NotAllowed for keys that may not
    use all of them.
    """
    if caller_of(request).access.models is not None:
        raise NotAllowed("This API key is limited to some models, and can't manage the server.")


def _presented(scope: Scope) -> bytes:
    """What came as a bearer token, as bytes; empty if none did, or more than one."""
    given = [value for name, value in scope["headers"] if name == b"authorization"]
    scheme, _, key = given[0].partition(b" ") if len(given) == 1 else (b"", b"", b"")
    return bytes(key) if scheme.lower() == b"bearer" else b""


def _telling_allowances(caller: Caller, send: Send) -> Send:
    """OpenAI's headers, as of the moment when the answer begins."""

    async def telling(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for left in caller.allowances():
                headers[f"x-ratelimit-limit-{left.unit}"] = str(left.limit)
                headers[f"x-ratelimit-remaining-{left.unit}"] = str(left.remaining)
                headers[f"x-ratelimit-reset-{left.unit}"] = f"{left.reset:.3f}s"
        await send(message)

    return telling
