"""Bodies read by pydantic's parser: no NaN, no lone surrogates, bounded depth and numbers.

The standard library's accepts all of these, and they break far from here.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.routing import APIRoute
from pydantic_core import from_json
from starlette.requests import ClientDisconnect

from adapters.http.request_log import CLIENT_CLOSED_REQUEST


def parse(body: bytes) -> Any:
    """Raises ValueError."""
    return from_json(body, allow_inf_nan=False)


class _StrictRequest(Request):
    async def body(self) -> bytes:
        """FastAPI takes any other exception amid a body for a parsing error."""
        try:
            return await super().body()
        except ClientDisconnect:
            raise HTTPException(CLIENT_CLOSED_REQUEST) from None

    async def json(self) -> Any:
        """Raises json.JSONDecodeError, which FastAPI turns into a validation error."""
        body = await self.body()
        try:
            return parse(body)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


class StrictJsonRoute(APIRoute):
    """A route whose bodies are read so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(_StrictRequest(request.scope, request.receive))

        return strict
