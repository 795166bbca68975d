"""Refusals that need no more of a request than the name of its model.

Most of what a request costs is finding and checking what it asks for, and while many come at once
each waits for all of that.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from fastapi import Request
from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters.http.errors import render_error
from adapters.http.keys import caller_of
from adapters.http.limits import BodyTooLarge, body_too_large
from adapters.http.openai.meta import model_of
from adapters.http.strict_json import parse
from domain.errors import InvalidRequest, ServerBusy
from domain.models import ModelId


class RefuseWhenFull(Protocol):
    """full: whether it would refuse anything."""

    @property
    def full(self) -> bool: ...

    def __call__(self, model: ModelId) -> None:
        """Raises ServerBusy."""


class Admission:
    """Answers before the router while the server is full. Whatever it is not sure of passes."""

    def __init__(
        self,
        app: ASGIApp,
        refuse_when_full: RefuseWhenFull,
        default_model: str | None,
        routes: Sequence[BaseRoute],
    ) -> None:
        self._app = app
        self._refuse_when_full = refuse_when_full
        self._default_model = default_model
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self._refuse_when_full.full or not self._find(scope):
            await self._app(scope, receive, send)
            return
        try:
            came = await _whole(receive)
            model = self._model(scope, b"".join(message.get("body", b"") for message in came))
            if model and caller_of(Request(scope)).access.may_use(model):
                self._refuse_when_full(model)
        except BodyTooLarge as error:
            await body_too_large(error).response()(scope, receive, send)
        except ServerBusy as error:
            await render_error(error).response()(scope, receive, send)
        else:

            async def again() -> Message:
                return came.pop(0) if came else await receive()

            await self._app(scope, again, send)

    def _find(self, scope: Scope) -> bool:
        """Notes the route for the log, as the router would."""
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return True
        return False

    def _model(self, scope: Scope, body: bytes) -> ModelId | None:
        """Which is asked; None if the request has to be looked at to say so."""
        if not Headers(scope=scope).get("content-type", "").startswith("application/json"):
            return None
        with suppress(ValueError, InvalidRequest):
            asked = parse(body)
            if isinstance(asked, dict) and isinstance(asked.get("model"), str | None):
                return model_of(asked.get("model"), self._default_model)
        return None


async def _whole(receive: Receive) -> list[Message]:
    """Until the body has come, or its client has left."""
    came = [await receive()]
    while came[-1].get("more_body"):
        came.append(await receive())
    return came
