"""The models dialect."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request

from adapters.http.keys import caller_of
from adapters.http.openai.models_schema import ModelBody, ModelList
from adapters.http.wire import ErrorBody, model_in_path
from domain.models import ListedModel, ModelId

ListModels = Callable[[], Awaitable[tuple[ListedModel, ...]]]
GetModel = Callable[[ModelId], Awaitable[ListedModel]]


def router(list_models: ListModels, get_model: GetModel) -> APIRouter:
    """`GET /v1/models` and `GET /v1/models/{id}`, ids with slashes included."""
    routes = APIRouter(tags=["models"])

    @routes.get("/v1/models")
    async def list_(request: Request) -> ModelList:
        access = caller_of(request).access
        models = [model for model in await list_models() if access.may_use(model.card.id)]
        return ModelList(data=[render(model) for model in models])

    @routes.get("/v1/models/{model_id:path}", responses={404: {"model": ErrorBody}})
    async def retrieve(model_id: str, request: Request) -> ModelBody:
        model = model_in_path(model_id)
        caller_of(request).access.require(model)
        return render(await get_model(model))

    return routes


def render(model: ListedModel) -> ModelBody:
    card = model.card
    return ModelBody(
        id=str(card.id),
        created=card.created,
        owned_by=card.id.owner or "local",
        state=model.state,
        context_length=model.context_length,
        max_model_len=model.context_length,
    )
