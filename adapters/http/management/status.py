"""The pool: how it stands, and what happens in it."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from importlib.metadata import version

from fastapi import APIRouter
from pydantic import Field

from adapters.http.errors import failure_frame
from adapters.http.management.models_schema import ResidentBody
from adapters.http.management.openapi import events
from adapters.http.management.render import resident_body
from adapters.http.sse import SseResponse, frame
from adapters.http.wire import WireModel
from application.model_pool import ModelPool
from application.pool_state import PoolEvent, PoolEventKind, PoolSnapshot


class FailingBody(WireModel):
    """A model whose engine died, and that has not ended a request well since."""

    model: str
    deaths: int = Field(description="In a row")
    retry_after: float = Field(description="Seconds until it may be loaded again")
    reason: str = Field(description="Of its last death")


class PoolBody(WireModel):
    """The memory of all models together, in bytes."""

    memory_budget: int
    memory_used: int = Field(description="Models on their way out included")
    waiting: int = Field(description="Requests that wait for memory")
    closing: bool = Field(description="The server is shutting down")
    residents: list[ResidentBody]
    hung: list[str] = Field(description="Models whose engines make no progress")
    failing: list[FailingBody] = Field(description="Models whose engines died")


class StatusBody(PoolBody):
    """A running server."""

    version: str
    uptime: float = Field(description="Seconds")


class PoolEventBody(WireModel):
    """Something that happened to a model, and the memory in use after it, in bytes."""

    event: PoolEventKind
    model: str
    reason: str
    memory_used: int
    memory_budget: int


def router(pool: ModelPool, patience: float) -> APIRouter:
    """`/api/v1/status` and `/api/v1/events`. patience: seconds between heartbeats."""
    routes = APIRouter()
    began = time.monotonic()

    @routes.get("/status")
    async def get_status() -> StatusBody:
        """What holds memory, and how much."""
        body = pool_body(pool.snapshot())
        uptime = round(time.monotonic() - began, 3)
        return StatusBody(**dict(body), version=version("portico-mlx"), uptime=uptime)

    @routes.get(
        "/events",
        status_code=200,
        response_class=SseResponse,
        responses=events(PoolBody | PoolEventBody, "A `snapshot`, then an event for each change"),
    )
    async def watch_pool() -> SseResponse:
        """What happens in the pool, as it happens. Ends when the server shuts down."""
        return SseResponse(_frames(pool), failure_frame, patience)

    return routes


def pool_body(snapshot: PoolSnapshot) -> PoolBody:
    return PoolBody(
        memory_budget=snapshot.memory_budget,
        memory_used=snapshot.memory_used,
        waiting=snapshot.waiting,
        closing=snapshot.closing,
        residents=[resident_body(resident) for resident in snapshot.residents],
        hung=[str(model) for model in snapshot.hung],
        failing=[
            FailingBody(
                model=str(model.id),
                deaths=model.deaths,
                retry_after=round(model.retry_after, 3),
                reason=model.reason,
            )
            for model in snapshot.failing
        ],
    )


async def _frames(pool: ModelPool) -> AsyncGenerator[bytes, None]:
    async with aclosing(pool.events()) as happenings:  # from before the snapshot: none is missed
        yield frame(pool_body(pool.snapshot()).model_dump_json(), "snapshot")
        async for event in happenings:
            yield frame(_event_body(event).model_dump_json(), event.kind)


def _event_body(event: PoolEvent) -> PoolEventBody:
    return PoolEventBody(
        event=event.kind,
        model=str(event.model),
        reason=event.reason,
        memory_used=event.memory_used,
        memory_budget=event.memory_budget,
    )
