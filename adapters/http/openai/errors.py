"""Every error there is, in OpenAI's shape."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse

from adapters.http.openai.schema import ErrorBody, ErrorDetail
from adapters.http.sse import frame
from domain.errors import (
    ContextOverflow,
    DomainError,
    InvalidRequest,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    ServerBusy,
    ShuttingDown,
)

INVALID = "invalid_request_error"


class MissingParameter(InvalidRequest):
    """A field that has no default is not there."""


# pydantic's names for what can be wrong with a value, and OpenAI's.
_CODES = {"missing": "missing_required_parameter", "too_long": "array_above_max_length"}


@dataclass(frozen=True, slots=True)
class WireError:
    """A status, the four fields of the error object, and headers."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def body(self) -> ErrorBody:
        detail = ErrorDetail(message=self.message, type=self.type, param=self.param, code=self.code)
        return ErrorBody(error=detail)

    def response(self) -> JSONResponse:
        return JSONResponse(self.body.model_dump(), self.status, dict(self.headers))


# Status, type and code of each failure of the domain; the first class that fits counts.
_FAILURES: tuple[tuple[type[DomainError], int, str, str], ...] = (
    (ContextOverflow, 400, INVALID, "context_length_exceeded"),
    (MissingParameter, 400, INVALID, "missing_required_parameter"),
    (InvalidRequest, 400, INVALID, "invalid_value"),
    (ModelNotFound, 404, INVALID, "model_not_found"),
    (ModelTooLarge, 400, INVALID, "model_too_large"),
    (ModelUnusable, 400, INVALID, "model_unusable"),
    (ServerBusy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (ShuttingDown, 503, "server_error", "shutting_down"),
    (DomainError, 500, "server_error", "engine_failed"),
)


def render_error(error: DomainError) -> WireError:
    """The wire's word for a failure of the domain."""
    status, kind, code = next(row[1:] for row in _FAILURES if isinstance(error, row[0]))
    param: str | None = None
    headers: dict[str, str] = {}
    match error:
        case InvalidRequest():
            param = error.param
        case ModelNotFound() | ModelTooLarge() | ModelUnusable():
            param = "model"
        case ServerBusy():
            headers["Retry-After"] = str(math.ceil(error.retry_after))
    return WireError(status, str(error), kind, param, code, headers)


def failure_frame(error: DomainError) -> bytes:
    """A failure after the first byte: an event that the clients raise."""
    return frame(render_error(error).body.model_dump_json())


def render_validation(errors: Sequence[Mapping[str, Any]], body: object) -> WireError:
    """The first of pydantic's complaints; `body` is what was sent."""
    first = _closest(errors)
    if first["type"] == "json_invalid":
        return WireError(400, f"The body is not valid JSON: {_reason(first)}.")
    context = first.get("ctx", {})
    if "text" in context:  # a refusal of our own
        parent = _param(first, body)
        param = f"{parent}.{context['param']}" if parent else context["param"]
        return WireError(400, context["text"], param=param, code=context["code"])
    if isinstance(body, bytes):
        return WireError(415, "The Content-Type must be application/json.")
    if not isinstance(body, dict):
        return WireError(400, "The body must be a JSON object.")
    param = _param(first, body)
    message = f"Invalid value for '{param}': {_reason(first)}."
    return WireError(400, message, param=param, code=_code(first))


def _closest(errors: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The first complaint; of a union's, the one that got furthest before it complained."""
    place = errors[0]["loc"][:-1]
    rivals = [error for error in errors if error["loc"][: len(place)] == place]
    return max(rivals, key=lambda error: len(error["loc"])) if len(place) > 1 else errors[0]


def _reason(error: Mapping[str, Any]) -> str:
    context = error.get("ctx", {})
    return str(context["error"]) if error["type"] == "json_invalid" else str(error["msg"])


def _code(error: Mapping[str, Any]) -> str:
    kind = str(error["type"])
    if kind == "too_short" and error["input"] == []:
        return "empty_array"
    if kind.endswith(("_type", "_parsing", "_unicode")):
        return "invalid_type"
    return _CODES.get(kind, "invalid_value")


def _param(error: Mapping[str, Any], body: object) -> str | None:
    """`messages[0].content`: the way to the culprit.

    pydantic's way also names the branches of unions that it tried; these are not in the body.
    """
    path = ""
    *way, last = error["loc"][1:] or [None]
    for step in [*way, last]:
        if isinstance(step, int) and isinstance(body, list) and step < len(body):
            path, body = f"{path}[{step}]", body[step]
        elif isinstance(step, str) and isinstance(body, dict) and step in body:
            path, body = (f"{path}.{step}" if path else step), body[step]
    if error["type"] == "missing":
        path = f"{path}.{last}" if path else str(last)
    return path or None
