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
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Receive, Scope, Send

from adapters.http.errors import WireError, render_error, render_validation
from adapters.http.guard import NotAllowed
from adapters.http.hosts import HostGuard
from adapters.http.keys import KeyGate, KeyRing, whole_server
from adapters.http.limits import (
    BodyTooLarge,
    HangUp,
    LimitBody,
    LimitConnections,
    LimitHead,
    body_too_large,
)
from adapters.http.management import routes as management
from adapters.http.metrics import MetricsPage
from adapters.http.metrics import router as metrics_router
from adapters.http.openai import chat, completions, models
from adapters.http.openai.admission import Admission, RefuseWhenFull
from adapters.http.openai.meta import DialectOptions
from adapters.http.request_log import CLIENT_CLOSED_REQUEST, RequestLog, RequestSeen, unseen
from adapters.http.sse import ClientLeft
from adapters.http.wire import ERROR_CONTENT
from application.pool_state import PoolSnapshot
from domain.errors import DomainError
from domain.hosts import HostAllowlist

_RATE_LIMIT_HEADERS = [
    f"x-ratelimit-{what}-{unit}"
    for what in ("limit", "remaining", "reset")
    for unit in ("requests", "tokens")
]

# Of every API route; the default is also what keeps FastAPI from announcing a 422 of its own.
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"description": "An API key is set, and did not come", "content": ERROR_CONTENT},
    403: {"description": "By a Host, a page or a key that may not", "content": ERROR_CONTENT},
    429: {"description": "Too many wait, or a key's limit is reached", "content": ERROR_CONTENT},
    "default": {"description": "Any other failure", "content": ERROR_CONTENT},
}


# For the description of the API alone, so that /docs has a field for the key.
_described_as_bearer = HTTPBearer(
    auto_error=False, scheme_name="api_key", description="The settings `api_key` and `api_keys`"
)


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class UseCases:
    """What the application serves, as plain callables."""

    complete_chat: chat.CompleteChat
    complete_text: completions.CompleteText
    refuse_when_full: RefuseWhenFull
    list_models: models.ListModels
    get_model: models.GetModel
    management: management.Management
    starting: Callable[[], bool] = _never  # models are being loaded before anyone asks
    metrics: MetricsPage | None = None


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """keys: one is asked for on every route but `/livez`, when there are any.
    hosts: the names that the server answers to. cors_origins: web pages that may use it.
    max_header_bytes, max_body_bytes: larger requests are refused before they are read.
    max_body_values: and those whose JSON holds more, before it is parsed.
    allow_pulls: whether clients may download and delete models.
    """

    dialect: DialectOptions = field(default_factory=DialectOptions)
    keys: KeyRing = field(default_factory=KeyRing)
    hosts: HostAllowlist = field(default_factory=HostAllowlist)
    cors_origins: tuple[str, ...] = ()
    max_header_bytes: int = 16 * 1024
    max_body_bytes: int = 16 * 2**20
    max_body_values: int = 20_000
    allow_pulls: bool = True


Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


@asynccontextmanager
async def _nothing_to_do(app: FastAPI) -> AsyncIterator[None]:
    yield


def create_app(
    use_cases: UseCases,
    options: HttpOptions,
    lifespan: Lifespan = _nothing_to_do,
    seen: RequestSeen = unseen,
) -> FastAPI:
    """One application over one set of use cases. `seen` is told of every request at its end."""
    app = FastAPIOffline(  # no scripts of others in pages that may ask this server for anything
        static_url="/docs/static",
        title="Portico",
        summary="The OpenAI-compatible inference server for Apple's MLX.",
        version=version("portico-mlx"),
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect has no body, and no error of ours
    )
    pool, dialect = use_cases.management.pool, options.dialect
    described = [Depends(_described_as_bearer)] if options.keys else []
    generating = [
        chat.router(use_cases.complete_chat, pool.reason_to_wait, dialect),
        completions.router(use_cases.complete_text, pool.reason_to_wait, dialect),
    ]
    listing = models.router(use_cases.list_models, use_cases.get_model)
    for router in (*generating, listing):
        app.include_router(router, dependencies=described, responses=_ERRORS)
    of_all_models = [
        management.router(use_cases.management, dialect.patience, allow_pulls=options.allow_pulls)
    ]
    if use_cases.metrics:
        of_all_models.append(metrics_router(use_cases.metrics))
    for router in of_all_models:
        app.include_router(
            router, dependencies=[*described, Depends(whole_server)], responses=_ERRORS
        )
    open_routes = _add_health(app, pool.snapshot, use_cases.starting, described)
    _add_errors(app)
    app.add_middleware(
        Admission,
        refuse_when_full=use_cases.refuse_when_full,
        default_model=dialect.default_model,
        routes=[route for router in generating for route in router.routes],
    )
    _add_guards(app, options, open_routes, seen)
    return app


def _add_guards(
    app: FastAPI, options: HttpOptions, open_routes: list[BaseRoute], seen: RequestSeen
) -> None:
    """From the inside out: what is added last is asked first."""
    app.add_middleware(
        LimitBody, max_bytes=options.max_body_bytes, max_values=options.max_body_values
    )
    app.add_middleware(LimitHead, max_bytes=options.max_header_bytes)
    if options.keys:
        app.add_middleware(KeyGate, keys=options.keys, open_routes=open_routes)
    app.add_middleware(_CleanPath)
    if options.cors_origins:
        # No credentials: they are for cookies, and there are none. A page sends its key itself.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            allow_private_network=True,
            expose_headers=["retry-after", "x-request-id", *_RATE_LIMIT_HEADERS],
        )
    app.add_middleware(HostGuard, hosts=options.hosts, origins=options.cors_origins)
    app.add_middleware(LimitConnections, open_routes=open_routes)
    app.add_middleware(HangUp)
    failed = WireError(500, "The server failed on this request.", "server_error")
    app.add_middleware(RequestLog, last_resort=failed.response(), seen=seen)


def _add_health(
    app: FastAPI,
    snapshot: Callable[[], PoolSnapshot],
    starting: Callable[[], bool],
    described: list[Any],
) -> list[BaseRoute]:
    """The routes for probes, some of which ask with HEAD. Returns those that are open to all."""

    def health(fault: str | None) -> JSONResponse:
        return JSONResponse({"status": fault or "ok"}, 503 if fault else 200)

    @app.head("/livez", include_in_schema=False)
    @app.get("/livez", tags=["health"])
    async def alive() -> JSONResponse:
        """503 while an engine hangs, or has hung and still holds its memory; 200 otherwise."""
        return health("hung" if snapshot().hung else None)

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["health"], dependencies=described)
    async def ready() -> JSONResponse:
        """200 while new requests are taken and pinned models had their turn; 503 otherwise."""
        if snapshot().closing:
            return health("closing")
        return health("starting" if starting() else None)

    return [route for route in app.routes if getattr(route, "endpoint", None) is alive]


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

    @app.exception_handler(BodyTooLarge)
    async def too_large(request: Request, error: BodyTooLarge) -> Response:
        return body_too_large(error).response()

    @app.exception_handler(NotAllowed)
    async def not_allowed(request: Request, error: NotAllowed) -> Response:
        return WireError(403, str(error), code="not_allowed").response()

    @app.exception_handler(ClientLeft)
    async def left(request: Request, error: ClientLeft) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)


class _CleanPath:
    """`/v1//models` is `/v1/models`: clients join base and path with a slash too many.

    `/v1/models/m%0A` is not `/v1/models/m`, though Starlette's patterns pass over a last newline.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = re.sub(r"[\x00-\x1f\x7f]", "\ufffd", scope["path"])
            scope["path"] = re.sub(r"/{2,}", "/", path)
        await self._app(scope, receive, send)
