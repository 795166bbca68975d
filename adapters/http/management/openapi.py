"""What the routes answer beside their bodies, for the OpenAPI document."""

from typing import Any

from adapters.http.sse import SseResponse
from adapters.http.wire import ERROR_CONTENT

_WHEN = {
    400: "The request can't work as it is; `param` and `code` say why",
    403: "A setting forbids it, or the hub does",
    404: "There is no such model or job",
    409: "The model is in use",
    429: "The memory is taken by models that are in use; `details` has the numbers",
    500: "The model could not be loaded",
    502: "The hub can't be reached, or sent what it should not",
    503: "The server is shutting down, or works offline; or the hub is busy",
}

Responses = dict[int | str, dict[str, Any]]


def errors(*statuses: int) -> Responses:
    return {status: {"description": _WHEN[status], "content": ERROR_CONTENT} for status in statuses}


def events(data: Any, description: str) -> Responses:
    """Server-sent events whose data are of a type; for routes whose class is SseResponse."""
    # FastAPI would call them strings, as all that is not application/json.
    content = {SseResponse.media_type: {"schema": {"type": "object"}}}
    return {200: {"model": data, "description": description, "content": content}}
