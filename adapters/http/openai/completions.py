"""The legacy completion dialect: a body into a command, events into an answer or into chunks."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Literal

from fastapi import APIRouter, Request

from adapters.http.openai.completions_schema import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
)
from adapters.http.openai.errors import failure_frame
from adapters.http.openai.meta import Meta, model_of, usage_body
from adapters.http.openai.schema import ErrorBody
from adapters.http.sse import SseResponse, collect, frame, while_connected
from adapters.http.strict_json import StrictJsonRoute
from domain.chat import TextCommand
from domain.events import ChatAnswer, ChatEvent, Finished, FinishReason, TextDelta, assemble
from domain.outputs import TokenScore

CompleteText = Callable[[TextCommand], AsyncGenerator[ChatEvent, None]]

_DEFAULT_MAX_TOKENS = 16  # OpenAI's


def router(complete: CompleteText, default_model: str | None, patience: float) -> APIRouter:
    """`POST /v1/completions`."""
    routes = APIRouter(tags=["completions"], route_class=StrictJsonRoute)

    @routes.post(
        "/v1/completions",
        response_model=Completion,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "The answer, or chunks"},
            400: {"model": ErrorBody},
            404: {"model": ErrorBody},
        },
    )
    async def create_completion(body: CompletionRequest, request: Request) -> object:
        command = to_command(body, default_model)
        meta = Meta.new("cmpl", command.model, includes_usage=body.includes_usage)
        events = complete(command)
        if body.stream:
            return SseResponse(frames(events, meta), failure_frame, patience)
        return render(assemble(await while_connected(request.receive, collect(events))), meta)

    return routes


def to_command(body: CompletionRequest, default_model: str | None) -> TextCommand:
    """Pure. Raises InvalidRequest."""
    return TextCommand(
        model=model_of(body.model, default_model),
        prompt=body.prompt if isinstance(body.prompt, str) else tuple(body.prompt),
        sampling=body.sampling(body.max_tokens or _DEFAULT_MAX_TOKENS, body.logprobs),
    )


def render(answer: ChatAnswer, meta: Meta) -> Completion:
    """The whole answer as one body."""
    choice = CompletionChoice(
        index=0,
        text=answer.text,
        logprobs=_logprobs(answer.scores, 0),
        finish_reason=_reason(answer.reason),
    )
    return _completion(meta, [choice]).model_copy(update={"usage": usage_body(answer.usage)})


async def frames(
    events: AsyncGenerator[ChatEvent, None], meta: Meta
) -> AsyncGenerator[bytes, None]:
    """The answer as chunks, ending in `[DONE]`. Closing it closes `events`."""
    offset = 0
    async with aclosing(events):
        async for event in events:
            if isinstance(event, TextDelta):
                yield _frame(meta, event.text, _logprobs(event.scores, offset))
                offset += len(event.text)
            elif isinstance(event, Finished):
                for data in _last_frames(event, meta):
                    yield data
    yield frame("[DONE]")


def _last_frames(event: Finished, meta: Meta) -> Iterator[bytes]:
    choice = CompletionChoice(index=0, text="", logprobs=None, finish_reason=_reason(event.reason))
    yield frame(_completion(meta, [choice]).model_dump_json())
    if meta.includes_usage:
        last = _completion(meta, []).model_copy(update={"usage": usage_body(event.usage)})
        yield frame(last.model_dump_json())


def _reason(reason: FinishReason) -> Literal["stop", "length"]:
    return "length" if reason == "length" else "stop"


def _frame(meta: Meta, text: str, logprobs: CompletionLogprobs | None) -> bytes:
    choice = CompletionChoice(index=0, text=text, logprobs=logprobs, finish_reason=None)
    return frame(_completion(meta, [choice]).model_dump_json())


def _completion(meta: Meta, choices: list[CompletionChoice]) -> Completion:
    return Completion(id=meta.id, created=meta.created, model=meta.model, choices=choices)


def _logprobs(scores: tuple[TokenScore, ...], offset: int) -> CompletionLogprobs | None:
    """offset: where in the choice's text the first of these tokens begins."""
    if not scores:
        return None
    offsets = []
    for score in scores:
        offsets.append(offset)
        offset += len(score.token)
    return CompletionLogprobs(
        tokens=[score.token for score in scores],
        token_logprobs=[score.logprob for score in scores],
        top_logprobs=[{a.token: a.logprob for a in score.alternatives} for score in scores],
        text_offset=offsets,
    )
