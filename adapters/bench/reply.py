"""What a server answered, out of what arrived and when. Pure."""

import json
from dataclasses import dataclass, field
from typing import Any

from adapters.bench.wire import Read, events

# What reading JSON of the wrong shape, size or depth raises.
_NONSENSE = (
    ValueError,
    TypeError,
    AttributeError,
    KeyError,
    IndexError,
    OverflowError,
    RecursionError,
)


@dataclass(frozen=True, slots=True)
class Failure:
    kind: str  # one of a few, to be counted: "http 429", "reset", "timeout", ...
    detail: str = ""


@dataclass(slots=True)
class Exchange:
    """A request and what came back, as raw as it came. Times are of time.perf_counter."""

    sent: float
    ended: float = 0.0
    status: int = 0
    content_type: str = ""
    reads: list[Read] = field(default_factory=list)
    failure: Failure | None = None  # of the connection


@dataclass(frozen=True, slots=True)
class Reply:
    """An exchange, understood. Times are of time.perf_counter."""

    sent: float
    ended: float
    arrivals: tuple[float, ...] = ()  # when text came; what came in one read came at one time
    chunks: int = 0  # events with text
    text: str = ""  # the answer, without its reasoning
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    counted: bool = False  # by the server; else a chunk is taken for a token
    failure: Failure | None = None


def understand(exchange: Exchange) -> Reply:
    """Never raises: what makes no sense is a reply that failed."""
    if failure := exchange.failure or _refusal(exchange):
        return Reply(exchange.sent, exchange.ended, failure=failure)
    try:
        return _read(exchange)
    except _NONSENSE as error:
        failure = Failure("malformed", f"{type(error).__name__}: {error}")
        return Reply(exchange.sent, exchange.ended, failure=failure)


def _refusal(exchange: Exchange) -> Failure | None:
    body = b"".join(data for _, data in exchange.reads)
    if exchange.status != 200:  # noqa: PLR2004 - HTTP's OK
        return Failure(f"http {exchange.status}", _message(body))
    if exchange.content_type.startswith("application/json"):
        return Failure("not a stream", _message(body))
    return None


def _message(body: bytes) -> str:
    """What the server says went wrong, in a line."""
    text = body.decode(errors="replace")
    try:
        error = json.loads(text)["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except _NONSENSE:
        pass
    return " ".join(str(text).split())[:200]


def _read(exchange: Exchange) -> Reply:
    arrivals: list[float] = []
    texts: list[str] = []
    usage: dict[str, Any] = {}
    chunks, complete = 0, False
    for arrived, data in events(exchange.reads):
        if data == b"[DONE]":
            complete = True
            continue
        chunk = json.loads(data)
        if chunk.get("error"):
            return Reply(
                exchange.sent, exchange.ended, failure=Failure("error event", _message(data))
            )
        usage = chunk.get("usage") or usage
        for choice in chunk.get("choices") or ():
            complete = complete or bool(choice.get("finish_reason"))
            text, other = _said(choice)
            texts.append(text)
            if text or other:
                chunks += 1
                if not arrivals or arrived > arrivals[-1]:
                    arrivals.append(arrived)
    if not complete:
        # Some close the connection properly in the middle of an answer.
        return Reply(exchange.sent, exchange.ended, failure=Failure("cut off", "no last event"))
    details = usage.get("prompt_tokens_details") or {}
    return Reply(
        sent=exchange.sent,
        ended=exchange.ended,
        arrivals=tuple(arrivals),
        chunks=chunks,
        text="".join(texts),
        prompt_tokens=int(usage.get("prompt_tokens") or 0),
        output_tokens=int(usage.get("completion_tokens") or 0) if usage else chunks,
        cached_tokens=int(details.get("cached_tokens") or 0),
        counted=bool(usage),
    )


def _said(choice: dict[str, Any]) -> tuple[str, bool]:
    """The visible text of a piece, and whether it says something else."""
    delta = choice.get("delta")
    if delta is None:
        return str(choice.get("text") or ""), False
    other = ("reasoning_content", "reasoning", "tool_calls", "refusal")
    return str(delta.get("content") or ""), any(delta.get(name) for name in other)
