"""What is on this machine and what of it is in memory: look, load, unload, pin, delete."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request

from adapters.http.guard import pulls_allowed
from adapters.http.management.models_schema import (
    AnyModelBody,
    DeletedBody,
    EstimateBody,
    EstimateRequest,
    LoadRequest,
    ModelsBody,
    PinRequest,
    UnloadedBody,
    UnloadRequest,
)
from adapters.http.management.openapi import errors
from adapters.http.management.render import estimate_body, model_body
from adapters.http.sse import while_connected
from adapters.http.strict_json import StrictJsonRoute
from adapters.http.wire import model_in_path
from application.manage_models import DeleteModel, DescribeModels
from application.model_pool import ModelPool
from domain.models import ModelId

InPath = Annotated[str, Path(description="`owner/name` or a name, its slash encoded or not")]


def router(
    describe: DescribeModels, delete: DeleteModel, pool: ModelPool, *, allow_pulls: bool
) -> APIRouter:
    """`/api/v1/models` and `/api/v1/estimate`."""
    routes = APIRouter(route_class=StrictJsonRoute)

    @routes.get("/models")
    async def list_models() -> ModelsBody:
        """Every model on this machine, sorted by id."""
        return ModelsBody(data=[model_body(model) for model in await describe()])

    @routes.post("/models/load", responses=errors(400, 404, 429, 500, 503))
    async def load_model(body: LoadRequest, request: Request) -> AnyModelBody:
        """Load a model before anyone asks for it. Answers once it is loaded."""
        model = ModelId.parse(body.model)
        await while_connected(request.receive, pool.load(model, wait=body.wait, pin=body.pin))
        return model_body(await describe.one(model))

    @routes.post("/models/unload", responses=errors(400, 404, 409))
    async def unload_model(body: UnloadRequest) -> UnloadedBody:
        """Free a model's memory. Answers once it is free."""
        model = ModelId.parse(body.model)
        was_loaded = await pool.unload(model, force=body.force)
        if not was_loaded:
            await describe.one(model)  # a slip of the pen is no success
        return UnloadedBody(model=str(model), was_loaded=was_loaded)

    @routes.post("/models/pin", responses=errors(400, 404))
    async def pin_model(body: PinRequest) -> AnyModelBody:
        """Keep a model in memory once it is there, or let it leave again."""
        model = ModelId.parse(body.model)
        await pool.pin(model, body.pinned)
        return model_body(await describe.one(model))

    @routes.get("/models/{model_id:path}", responses=errors(404))
    async def get_model(model_id: InPath) -> AnyModelBody:
        """One model on this machine."""
        return model_body(await describe.one(model_in_path(model_id)))

    @routes.delete(
        "/models/{model_id:path}",
        responses=errors(400, 403, 404, 409),
        dependencies=[Depends(pulls_allowed(allow_pulls))],
    )
    async def delete_model(model_id: InPath) -> DeletedBody:
        """Take a model out of memory and off the disk, unfinished downloads included.

        Downloads and models below `models_dir` are deleted (`portico convert` writes there); other
        folders of yours and the demo model are not.
        """
        model = model_in_path(model_id)
        return DeletedBody(model=str(model), freed_bytes=await delete(model))

    @routes.post("/estimate", responses=errors(400, 404, 500))
    async def estimate_memory(body: EstimateRequest) -> EstimateBody:
        """What a model would need, and whether it would fit. Loads nothing."""
        model = ModelId.parse(body.model)
        estimate = await pool.estimate(model, body.context_length, body.concurrency, body.kv_bits)
        return estimate_body(estimate)

    return routes
