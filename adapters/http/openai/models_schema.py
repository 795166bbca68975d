"""`/v1/models` on the wire."""

from typing import Literal

from adapters.http.wire import WireModel
from domain.models import ModelState


class ModelBody(WireModel):
    """`state`, `context_length` and `max_model_len` are extensions that clients make use of."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    state: ModelState
    context_length: int
    max_model_len: int


class ModelList(WireModel):
    object: Literal["list"] = "list"
    data: list[ModelBody]
