"""The FastAPI application: routers, errors and health around plain use cases."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.http.errors import WireError, render_error, render_validation
from adapters.http.guard import LimitBody, NotAllowed, WrongKey, bearer_key, described_as_bearer
from adapters.http.management import routes as management
from adapters.http.openai import chat, completions, models
from adapters.http.openai.meta import DialectOptions
from adapters.http.request_log import RequestLog
from adapters.http.sse import ClientLeft
from adapters.http.wire import ERROR_CONTENT
from application.pool_state import PoolSnapshot
from domain.errors import DomainError

_CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it

# Of every API route; the default is also what keeps FastAPI from announcing a 422 of its own.
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "An API key is set, and did not come", "content": ERROR_CONTENT},
    "default": {"description": "Any other failure", "content": ERROR_CONTENT},
}


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the application serves, as plain callables."""

    complete_chat: chat.CompleteChat
    complete_text: completions.CompleteText
    list_models: models.ListModels
    get_model: models.GetModel
    management: management.Management


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """hang_timeout: seconds of an engine's silence amid work that count as a hang.
    api_key: asked for on every route but health and docs, when there is one.
    max_body_bytes: larger requests are refused before they are read.
    allow_pulls: whether clients may download and delete models.
    """

    dialect: DialectOptions = field(default_factory=DialectOptions)
    hang_timeout: float = 30.0
    api_key: SecretStr | None = None
    max_body_bytes: int = 64 * 2**20
    allow_pulls: bool = True


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _nothing_to_do(app: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(
    use_cases: UseCases, options: HttpOptions, lifespan: Lifespan = _nothing_to_do
) -> FastAPI:
    """One application over one set of use cases."""
    app = FastAPI(
        title="Portico",
        summary="The OpenAI-compatible inference server for Apple's MLX.",
        version=version("portico-mlx"),
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect has no body, and no error of ours
    )
    pool, dialect = use_cases.management.pool, options.dialect
    guarded = _guards(options.api_key)
    for router in (
        chat.router(use_cases.complete_chat, pool.reason_to_wait, dialect),
        completions.router(use_cases.complete_text, pool.reason_to_wait, dialect),
        models.router(use_cases.list_models, use_cases.get_model),
        management.router(use_cases.management, dialect.patience, allow_pulls=options.allow_pulls),
    ):
        app.include_router(router, dependencies=guarded, responses=_ERRORS)
    _add_health(app, pool.snapshot, options.hang_timeout)
    _add_errors(app)
    app.add_middleware(LimitBody, max_bytes=options.max_body_bytes)
    app.add_middleware(_CleanPath)
    failed = WireError(500, "The server failed on this request.", "server_error")
    app.add_middleware(RequestLog, last_resort=failed.response())
    return app


def _guards(key: SecretStr | None) -> list[Any]:
    """Dependencies of every route that asks for the key."""
    return [Depends(described_as_bearer), Depends(bearer_key(key))] if key else []


def _add_health(app: FastAPI, snapshot: Callable[[], PoolSnapshot], hang_timeout: float) -> None:
    def hung() -> list[str]:
        residents = snapshot().residents
        return [str(model.id) for model in residents if model.silence > hang_timeout]

    @app.get("/livez", tags=["health"])
    async def alive() -> JSONResponse:
        """200 while every engine that has work makes progress; 503 otherwise."""
        silent = hung()
        return JSONResponse({"status": "hung" if silent else "ok"}, 503 if silent else 200)

    @app.get("/readyz", tags=["health"])
    async def ready() -> JSONResponse:
        """200 while new requests are taken; 503 otherwise."""
        closing = snapshot().closing
        return JSONResponse({"status": "closing" if closing else "ok"}, 503 if closing else 200)


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(DomainError)
    async def domain(request: Request, error: DomainError) -> Response:
        return render_error(error).response()

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, error: RequestValidationError) -> Response:
        return render_validation(error.errors(), error.body).response()

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        return WireError(error.status_code, error.detail, headers=error.headers or {}).response()

    @app.exception_handler(WrongKey)
    async def wrong_key(request: Request, error: WrongKey) -> Response:
        headers = {"WWW-Authenticate": "Bearer"}
        return WireError(401, str(error), code="invalid_api_key", headers=headers).response()

    @app.exception_handler(NotAllowed)
    async def not_allowed(request: Request, error: NotAllowed) -> Response:
        return WireError(403, str(error), code="not_allowed").response()

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return Response(status_code=_CLIENT_CLOSED_REQUEST)


class _CleanPath:
    """`/v1//models` is `/v1/models`: clients join base and path with a slash too many."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["path"] = re.sub(r"/{2,}", "/", scope["path"])
        await self._app(scope, receive, send)
