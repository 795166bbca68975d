"""What every dialect has on the wire: strict models, the shape of errors, ids in paths."""

from typing import Annotated, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    JsonValue,
    SkipValidation,
)
from pydantic_core import PydanticCustomError

from domain.errors import InvalidRequest, ModelNotFound
from domain.models import ModelId

OmittedIfNone = Field(exclude_if=lambda value: value is None)

T = TypeVar("T")
_MOST_ENTRIES = 10_000


class _FirstFault(FailFast):
    """FailFast has no hash, and what stands in a union needs one."""

    __hash__ = object.__hash__


def _countable(value: object) -> object:
    if isinstance(value, dict) and len(value) > _MOST_ENTRIES:
        raise PydanticCustomError("too_long", f"at most {_MOST_ENTRIES} entries are allowed")
    return value


# What a client may fill with millions of wrong values. pydantic collects what it says of each of
# them: 16 MB of these would take gigabytes.
Items = Annotated[list[T], _FirstFault()]
# What the parser has made of JSON needs no second look, which would take longer than the first.
AnyJson = SkipValidation[JsonValue]
Entries = Annotated[dict[str, T], Field(max_length=_MOST_ENTRIES), BeforeValidator(_countable)]


class WireModel(BaseModel):
    """Strict, as OpenAI is: "1" is no number. Unknown fields are let pass: clients send them."""

    # What is wrong with a prompt may be logged, the prompt may not.
    model_config = ConfigDict(
        strict=True, extra="ignore", allow_inf_nan=False, hide_input_in_errors=True
    )


class ErrorDetail(WireModel):
    message: str
    type: str
    param: str | None
    code: str | None
    details: Annotated[dict[str, int] | None, OmittedIfNone] = Field(
        None, description="The numbers behind a refusal for want of memory, in bytes"
    )


class ErrorBody(WireModel):
    """The shape of every error there is."""

    error: ErrorDetail


# For the OpenAPI document. By reference, so that routes that stream events don't claim that their
# errors are streams too.
ERROR_CONTENT = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}


def model_in_path(text: str) -> ModelId:
    """Raises ModelNotFound: what can't be an id names nothing that is here."""
    try:
        return ModelId.parse(text)
    except InvalidRequest as error:
        raise ModelNotFound(ascii(text[:80])[1:-1]) from error
