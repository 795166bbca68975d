"""Refusals that need no more of a body than the name of the model.

Most of what a request costs is checking the rest, and while many come at once each waits for all
of that.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import Request

from adapters.http.keys import caller_of
from adapters.http.openai.meta import model_of
from adapters.http.strict_json import parsed_body
from domain.errors import InvalidRequest
from domain.models import ModelId

RefuseWhenFull = Callable[[ModelId], None]


def admission(
    refuse_when_full: RefuseWhenFull, default_model: str | None
) -> Callable[[Request], Awaitable[None]]:
    """A route dependency, which FastAPI asks between parsing a body and checking it.

    Raises what `refuse_when_full` does. Whatever it is not sure of passes.
    """

    async def check(request: Request) -> None:
        body = parsed_body(request)
        if not isinstance(body, dict):
            return
        asked = body.get("model") or None
        if isinstance(asked, str | None):
            with suppress(InvalidRequest):
                model = model_of(asked, default_model)
                if caller_of(request).access.may_use(model):
                    refuse_when_full(model)

    return check
