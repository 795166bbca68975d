"""Every error there is, in OpenAI's shape, which all dialects but those with their own share."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi.responses import JSONResponse

from adapters.http.request_facts import note_error
from adapters.http.sse import frame
from adapters.http.wire import ErrorBody, ErrorDetail
from application.refusals import NeverFits, NoRoomNow
from domain.errors import (
    ContextOverflow,
    DomainError,
    EngineResting,
    HubFailed,
    HubFault,
    InvalidRequest,
    JobNotFound,
    MemoryBusy,
    ModelBeingPulled,
    ModelInUse,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    RequestTimedOut,
    ServerBusy,
    ShuttingDown,
)

INVALID = "invalid_request_error"
SERVER = "server_error"


class MissingParameter(InvalidRequest):
    """A field that has no default is not there."""


# pydantic's names for what can be wrong with a value, and OpenAI's.
_CODES = {"missing": "missing_required_parameter", "too_long": "array_above_max_length"}


@dataclass(frozen=True, slots=True)
class WireError:
    """A status, the fields of the error object, and headers."""

    status: int
    message: str
    type: str = INVALID
    param: str | None = None
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    details: dict[str, int] | None = None

    @property
    def detail(self) -> ErrorDetail:
        return ErrorDetail(
            message=self.message,
            type=self.type,
            param=self.param,
            code=self.code,
            details=self.details,
        )

    @property
    def body(self) -> ErrorBody:
        return ErrorBody(error=self.detail)

    def response(self) -> JSONResponse:
        note_error(self.code)
        return JSONResponse(self.body.model_dump(), self.status, dict(self.headers))


# Status, type and code of each failure of the domain; the first class that fits counts.
_FAILURES: tuple[tuple[type[DomainError], int, str, str], ...] = (
    (ContextOverflow, 400, INVALID, "context_length_exceeded"),
    (MissingParameter, 400, INVALID, "missing_required_parameter"),
    (InvalidRequest, 400, INVALID, "invalid_value"),
    (ModelNotFound, 404, INVALID, "model_not_found"),
    (ModelTooLarge, 400, INVALID, "model_too_large"),
    (ModelUnusable, 400, INVALID, "model_unusable"),
    (ModelInUse, 409, INVALID, "model_in_use"),
    (ModelBeingPulled, 409, INVALID, "model_being_pulled"),
    (JobNotFound, 404, INVALID, "job_not_found"),
    (MemoryBusy, 429, "rate_limit_error", "insufficient_memory"),
    (ServerBusy, 429, "rate_limit_error", "rate_limit_exceeded"),
    (ShuttingDown, 503, SERVER, "shutting_down"),
    (RequestTimedOut, 504, SERVER, "request_timeout"),
    (EngineResting, 503, SERVER, "engine_resting"),
    (DomainError, 500, SERVER, "engine_failed"),
)

# Never 401: the hub's token is ours, and clients would think that their API key is wrong.
_HUB_STATUS: dict[HubFault, int] = {
    HubFault.OFFLINE: 503,
    HubFault.UNREACHABLE: 502,
    HubFault.UNAUTHORIZED: 403,
    HubFault.GATED: 403,
    HubFault.MISSING: 404,
    HubFault.RENAMED: 404,
    HubFault.UNSUITABLE: 400,
    HubFault.BUSY: 503,
    HubFault.STALLED: 504,
    HubFault.CORRUPT: 502,
    HubFault.DISK_FULL: 507,
    HubFault.UNWRITABLE: 500,
}
_SERVER_ERRORS = 500


def render_error(error: DomainError) -> WireError:
    """The wire's word for a failure of the domain."""
    if isinstance(error, HubFailed):
        status = _HUB_STATUS[error.fault]
        kind = SERVER if status >= _SERVER_ERRORS else INVALID
        return WireError(status, str(error), kind, _param(error), error.fault.value)
    status, kind, code = next(row[1:] for row in _FAILURES if isinstance(error, row[0]))
    headers: dict[str, str] = {}
    if isinstance(error, ServerBusy | EngineResting | ShuttingDown):
        headers["Retry-After"] = str(math.ceil(error.retry_after))
    if isinstance(error, RequestTimedOut):
        headers["x-should-retry"] = "false"  # which OpenAI's clients heed; it would take as long
    return WireError(status, str(error), kind, _param(error), code, headers, _details(error))


def _param(error: DomainError) -> str | None:
    """The field to change."""
    match error:
        case InvalidRequest():
            return error.param
        case ModelNotFound() | ModelTooLarge() | ModelUnusable():
            return "model"
        case ModelInUse() | ModelBeingPulled():
            return "model"
        case HubFailed() if _HUB_STATUS[error.fault] < _SERVER_ERRORS:
            return "model"
        case _:
            return None


def _details(error: DomainError) -> dict[str, int] | None:
    match error:
        case NeverFits() | NoRoomNow():
            estimate = error.estimate
            return {
                "need": estimate.need.total,
                "weights": estimate.need.weights,
                "kv_cache": estimate.need.kv_cache,
                "prefill": estimate.need.prefill,
                "budget": estimate.budget,
                "in_use": estimate.in_use,
                "freeable": estimate.freeable,
                "pinned": estimate.pinned,
            }
        case _:
            return None


def failure_frame(error: DomainError) -> bytes:
    """A failure after the first byte: an event that the clients raise."""
    failure = render_error(error)
    note_error(failure.code)
    return frame(failure.body.model_dump_json())


def render_validation(errors: Sequence[Mapping[str, Any]], body: object) -> WireError:
    """The first of pydantic's complaints; `body` is what was sent."""
    first = _closest(errors)
    if first["type"] == "json_invalid":
        return WireError(400, f"The body is not valid JSON: {_reason(first)}.")
    context = first.get("ctx", {})
    if "text" in context:  # a refusal of our own
        parent = _place(first, body)
        param = f"{parent}.{context['param']}" if parent else context["param"]
        return WireError(400, context["text"], param=param, code=context["code"])
    if first["loc"][0] == "query":
        return _invalid(first, str(first["loc"][1]))
    if isinstance(body, bytes):
        return WireError(415, "The Content-Type must be application/json.")
    if not isinstance(body, dict):
        return WireError(400, "The body must be a JSON object.")
    return _invalid(first, _place(first, body))


def _invalid(error: Mapping[str, Any], param: str | None) -> WireError:
    message = f"Invalid value for '{param}': {_reason(error)}."
    return WireError(400, message, param=param, code=_code(error))


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


def _place(error: Mapping[str, Any], body: object) -> str | None:
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
