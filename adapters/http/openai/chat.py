"""The chat dialect: a body into a command, events into an answer or into chunks."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import TypedDict

from fastapi import APIRouter, Request
from pydantic import JsonValue

from adapters.http.openai.chat_schema import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChoiceLogprobs,
    ChunkChoice,
    ContentLogprob,
    Delta,
    DeltaFunction,
    DeltaToolCall,
    FunctionCall,
    ImagePart,
    RefusalPart,
    RequestMessage,
    ResponseMessage,
    ResponseToolCall,
    TextPart,
    TokenLogprob,
)
from adapters.http.openai.errors import failure_frame
from adapters.http.openai.meta import Meta, model_of, usage_body
from adapters.http.openai.schema import ErrorBody
from adapters.http.sse import SseResponse, collect, frame, while_connected
from adapters.http.strict_json import StrictJsonRoute
from domain.chat import ChatCommand, Image, Message, Text, Tool, ToolCall
from domain.events import (
    ChatAnswer,
    ChatEvent,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    assemble,
)
from domain.outputs import PromptProgress, TokenScore


class _Entry(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


CompleteChat = Callable[[ChatCommand], AsyncGenerator[ChatEvent, None]]


def router(complete: CompleteChat, default_model: str | None, patience: float) -> APIRouter:
    """`POST /v1/chat/completions`."""
    routes = APIRouter(tags=["chat"], route_class=StrictJsonRoute)

    @routes.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "The answer, or chunks"},
            400: {"model": ErrorBody},
            404: {"model": ErrorBody},
        },
    )
    async def create_chat_completion(body: ChatRequest, request: Request) -> object:
        command = to_command(body, default_model)
        meta = Meta.new("chatcmpl", command.model, includes_usage=body.includes_usage)
        events = complete(command)
        if body.stream:
            return SseResponse(frames(events, meta), failure_frame, patience)
        return render(assemble(await while_connected(request.receive, collect(events))), meta)

    return routes


def to_command(body: ChatRequest, default_model: str | None) -> ChatCommand:
    """Pure. Raises InvalidRequest."""
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    offers_tools = body.tool_choice != "none"
    return ChatCommand(
        model=model_of(body.model, default_model),
        messages=tuple(_message(message) for message in body.messages),
        sampling=body.sampling(body.max_completion_tokens or body.max_tokens, top_logprobs),
        tools=tuple(_tools(body)) if offers_tools else (),
        parallel_tool_calls=body.parallel_tool_calls is not False,
        template_options=_template_options(body),
    )


def _message(message: RequestMessage) -> Message:
    return Message(
        role="system" if message.role == "developer" else message.role,
        parts=tuple(_parts(message)),
        tool_calls=tuple(
            ToolCall(call.id, call.function.name, call.function.arguments)
            for call in message.tool_calls or ()
        ),
        answers=message.tool_call_id,
        name=message.name,
        reasoning=message.reasoning_content or "",
    )


def _parts(message: RequestMessage) -> Iterator[Text | Image]:
    if isinstance(message.content, str):
        yield Text(message.content)
        return
    for part in message.content or ():
        match part:
            case TextPart():
                yield Text(part.text)
            case RefusalPart():
                yield Text(part.refusal)
            case ImagePart():
                yield Image(part.image_url.url)


def _tools(body: ChatRequest) -> Iterator[Tool]:
    for spec in body.tools or ():
        function = spec.function
        yield Tool(function.name, function.description, function.parameters or {})


def _template_options(body: ChatRequest) -> dict[str, JsonValue]:
    options = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        options["reasoning_effort"] = body.reasoning_effort
    return options


def render(answer: ChatAnswer, meta: Meta) -> ChatCompletion:
    """The whole answer as one body."""
    message = ResponseMessage(content=answer.text or (None if answer.tool_calls else ""))
    if answer.reasoning:
        message.reasoning_content = answer.reasoning
    if answer.tool_calls:
        message.tool_calls = [
            ResponseToolCall(
                id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments)
            )
            for call in answer.tool_calls
        ]
    choice = ChatChoice(
        index=0,
        message=message,
        logprobs=_logprobs(answer.scores),
        finish_reason=answer.reason,
    )
    return ChatCompletion(
        id=meta.id,
        created=meta.created,
        model=meta.model,
        choices=[choice],
        usage=usage_body(answer.usage),
    )


async def frames(
    events: AsyncGenerator[ChatEvent, None], meta: Meta
) -> AsyncGenerator[bytes, None]:
    """The answer as chunks, ending in `[DONE]`. Closing it closes `events`."""
    opened = False
    async with aclosing(events):
        async for event in events:
            if not opened:  # the role comes once, and first
                opened = True
                yield _frame(meta, Delta(role="assistant", content=""))
            for data in _frames_of(event, meta):
                yield data
    yield frame("[DONE]")


def _frames_of(event: ChatEvent, meta: Meta) -> Iterator[bytes]:
    match event:
        case TextDelta():
            yield _frame(meta, Delta(content=event.text), logprobs=_logprobs(event.scores))
        case ReasoningDelta():
            yield _frame(meta, Delta(reasoning_content=event.text))
        case ToolCallDelta():
            yield from (_frame(meta, Delta(tool_calls=[part])) for part in _call_parts(event))
        case Finished():
            yield _frame(meta, Delta(), finish_reason=event.reason)
            if meta.includes_usage:
                chunk = ChatChunk(
                    id=meta.id,
                    created=meta.created,
                    model=meta.model,
                    choices=[],
                    usage=usage_body(event.usage),
                )
                yield frame(chunk.model_dump_json())
        case PromptProgress():
            pass


def _call_parts(event: ToolCallDelta) -> Iterator[DeltaToolCall]:
    call = event.call
    yield DeltaToolCall(
        index=event.index,
        id=call.id,
        type="function",
        function=DeltaFunction(name=call.name, arguments=""),
    )
    yield DeltaToolCall(index=event.index, function=DeltaFunction(arguments=call.arguments))


def _frame(
    meta: Meta,
    delta: Delta,
    logprobs: ChoiceLogprobs | None = None,
    finish_reason: FinishReason | None = None,
) -> bytes:
    choice = ChunkChoice(delta=delta, logprobs=logprobs, finish_reason=finish_reason)
    chunk = ChatChunk(id=meta.id, created=meta.created, model=meta.model, choices=[choice])
    return frame(chunk.model_dump_json())


def _logprobs(scores: tuple[TokenScore, ...]) -> ChoiceLogprobs | None:
    if not scores:
        return None
    return ChoiceLogprobs(
        content=[
            ContentLogprob(
                **_entry(score),
                top_logprobs=[TokenLogprob(**_entry(a)) for a in score.alternatives],
            )
            for score in scores
        ]
    )


def _entry(score: TokenScore) -> _Entry:
    return {"token": score.token, "logprob": score.logprob, "bytes": list(score.raw)}
