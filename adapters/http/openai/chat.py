"""The chat dialect: a body into a command, events into an answer or into chunks."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from functools import partial

from fastapi import APIRouter, Request
from pydantic import JsonValue

from adapters.http.errors import failure_frame
from adapters.http.keys import caller_of
from adapters.http.openai.chat_schema import (
    AllowedTools,
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
    JsonObjectFormat,
    JsonSchemaFormat,
    LarkFormat,
    NamedTool,
    RefusalPart,
    RegexFormat,
    RequestMessage,
    ResponseFormat,
    ResponseMessage,
    ResponseToolCall,
    TextPart,
    TokenLogprob,
)
from adapters.http.openai.meta import (
    DialectOptions,
    Meta,
    ReasonToWait,
    check_capacity,
    model_of,
    timings_body,
    usage_body,
    within_cap,
)
from adapters.http.openai.schema import TimingsBody, UsageBody
from adapters.http.openai.template import HOLE, FrameTemplate
from adapters.http.sse import SseResponse, frame, while_connected
from adapters.http.strict_json import StrictJsonRoute
from adapters.http.wire import ErrorBody
from application.choices import Choice, alternatives, assemble_all, side_by_side
from domain.chat import (
    ChatCommand,
    Image,
    JsonObject,
    JsonSchema,
    Lark,
    Message,
    OutputConstraint,
    Regex,
    RequiredToolCall,
    Text,
    Tool,
    ToolCall,
)
from domain.errors import InvalidRequest
from domain.events import (
    ChatAnswer,
    ChatEvent,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from domain.outputs import PromptProgress, TokenScore
from domain.rate_limits import expected_tokens

# What OpenAI's API takes absent parameters for.
_NO_PARAMETERS: dict[str, JsonValue] = {
    "type": "object",
    "properties": {},
    "additionalProperties": False,
}

CompleteChat = Callable[[ChatCommand], AsyncGenerator[ChatEvent, None]]


def router(
    complete: CompleteChat, reason_to_wait: ReasonToWait, options: DialectOptions
) -> APIRouter:
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
        caller = caller_of(request)
        command = to_command(body, options.default_model, caller.access.cache_scope)
        options.limits.check(command)
        caller.access.require(command.model)
        count = within_cap("n", body.n, options.max_choices)
        check_capacity("n", count, options.capacity)
        meta = Meta.new(
            "chatcmpl",
            command.model,
            includes_usage=body.includes_usage,
            includes_timings=body.includes_timings,
        )
        commands = alternatives(command, count)
        answers = side_by_side([complete(one) for one in commands])
        choices = caller.metered(answers, count, expected_tokens(commands, count))
        if body.stream:
            chunks = frames(choices, count, meta)
            reason = partial(reason_to_wait, command.model)
            return SseResponse(chunks, failure_frame, options.patience, reason, options.seconds)
        whole = assemble_all(choices, count)
        return render(await while_connected(request.receive, whole, options.seconds), meta)

    return routes


def to_command(body: ChatRequest, default_model: str | None, cache_scope: str = "") -> ChatCommand:
    """Pure. Raises InvalidRequest."""
    top_logprobs = (body.top_logprobs or 0) if body.logprobs else None
    tools, required = _tools(body)
    return ChatCommand(
        model=model_of(body.model, default_model),
        messages=tuple(_message(message) for message in body.messages),
        sampling=body.sampling(body.max_completion_tokens or body.max_tokens, top_logprobs),
        tools=tools,
        parallel_tool_calls=body.parallel_tool_calls is not False,
        constraint=RequiredToolCall(tools) if required else _constraint(body.response_format),
        template_options=_template_options(body),
        cache_scope=cache_scope,
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
        reasoning=message.reasoning_content or message.reasoning or "",
    )


def _parts(message: RequestMessage) -> Iterator[Text | Image]:
    if message.refusal:
        yield Text(message.refusal)
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


def _tools(body: ChatRequest) -> tuple[tuple[Tool, ...], bool]:
    """The tools that may be called, and whether one must be."""
    specs = [spec.function for spec in body.tools or ()]
    tools = tuple(
        Tool(f.name, f.description, _NO_PARAMETERS if f.parameters is None else f.parameters)
        for f in specs
    )
    match body.tool_choice:
        case "none":
            return (), False
        case "required":
            return tools, True
        case NamedTool() as named:
            return _named([named], tools), True
        case AllowedTools(allowed_tools=allowed):
            return _named(allowed.tools, tools), allowed.mode == "required"
        case _:
            return tools, False


def _named(named: Sequence[NamedTool], tools: tuple[Tool, ...]) -> tuple[Tool, ...]:
    names = {tool.function.name for tool in named}
    if unknown := names - {tool.name for tool in tools}:
        raise InvalidRequest(
            f"`tool_choice` names `{min(unknown)}`, which is not among `tools`.", "tool_choice"
        )
    return tuple(tool for tool in tools if tool.name in names)


def _constraint(form: ResponseFormat | None) -> OutputConstraint | None:
    match form:
        case JsonObjectFormat():
            return JsonObject()
        case JsonSchemaFormat():
            return JsonSchema(form.json_schema.json_schema)
        case RegexFormat():
            return Regex(form.regex)
        case LarkFormat():
            return Lark(form.grammar)
        case _:
            return None


def _template_options(body: ChatRequest) -> dict[str, JsonValue]:
    options = dict(body.chat_template_kwargs or {})
    if body.reasoning_effort is not None:
        options["reasoning_effort"] = body.reasoning_effort
    return options


def render(answers: Sequence[ChatAnswer], meta: Meta) -> ChatCompletion:
    """The whole answer as one body."""
    usages = [answer.usage for answer in answers]
    return ChatCompletion(
        id=meta.id,
        created=meta.created,
        model=meta.model,
        choices=[
            ChatChoice(
                index=index,
                message=_response_message(answer),
                logprobs=_logprobs(answer.scores),
                finish_reason=answer.reason,
            )
            for index, answer in enumerate(answers)
        ],
        usage=usage_body(usages[:1], usages),
        timings=timings_body(meta, answers[:1], answers),
    )


def _response_message(answer: ChatAnswer) -> ResponseMessage:
    calls = [
        ResponseToolCall(
            id=call.id, function=FunctionCall(name=call.name, arguments=call.arguments)
        )
        for call in answer.tool_calls
    ]
    return ResponseMessage(
        content=answer.text or (None if calls else ""),
        reasoning_content=answer.reasoning or None,
        reasoning=answer.reasoning or None,
        tool_calls=calls or None,
    )


async def frames(
    choices: AsyncGenerator[Choice, None], count: int, meta: Meta
) -> AsyncGenerator[bytes, None]:
    """The answers as chunks, ending in `[DONE]`. Closing it closes `choices`."""
    opened = False
    ended: list[Finished] = []
    writers = [ChunkWriter(meta, index) for index in range(count)]
    async with aclosing(choices):
        async for index, event in choices:
            if not opened:  # the role comes once, and first, in the order of the choices
                opened = True
                for writer in writers:
                    yield writer.opening()
            for data in writers[index].frames(event):
                yield data
            if isinstance(event, Finished):
                ended.append(event)
                is_last = len(ended) == count and not meta.includes_usage
                timings = timings_body(meta, ended[:1], ended) if is_last else None
                yield writers[index].closing(event.reason, timings)
    if meta.includes_usage:
        usages = [event.usage for event in ended]
        timings = timings_body(meta, ended[:1], ended)
        yield frame(_chunk(meta, [], usage_body(usages[:1], usages), timings).model_dump_json())
    yield frame("[DONE]")


class ChunkWriter:
    """The frames of one choice. What a token is, most of the time, is filled into a template."""

    def __init__(self, meta: Meta, index: int) -> None:
        self._meta = meta
        self._index = index
        self._text = FrameTemplate(self._chunk(Delta(content=HOLE)))
        self._reasoning = FrameTemplate(self._chunk(Delta(reasoning_content=HOLE, reasoning=HOLE)))

    def opening(self) -> bytes:
        return self._frame(Delta(role="assistant", content=""))

    def closing(self, reason: FinishReason, timings: TimingsBody | None) -> bytes:
        chunk = self._chunk(Delta(), finish_reason=reason)
        chunk.timings = timings
        return frame(chunk.model_dump_json())

    def frames(self, event: ChatEvent) -> Iterator[bytes]:
        """Of all but the last event."""
        match event:
            case TextDelta(scores=()):
                yield self._text.fill(event.text)
            case TextDelta():
                yield self._frame(Delta(content=event.text), logprobs=_logprobs(event.scores))
            case ReasoningDelta():
                yield self._reasoning.fill(event.text)
            case ToolCallDelta():
                for part in _call_parts(event):
                    yield self._frame(Delta(tool_calls=[part]))
            case PromptProgress() | Finished():
                pass

    def _frame(
        self,
        delta: Delta,
        logprobs: ChoiceLogprobs | None = None,
    ) -> bytes:
        return frame(self._chunk(delta, logprobs).model_dump_json())

    def _chunk(
        self,
        delta: Delta,
        logprobs: ChoiceLogprobs | None = None,
        finish_reason: FinishReason | None = None,
    ) -> ChatChunk:
        choice = ChunkChoice(
            index=self._index, delta=delta, logprobs=logprobs, finish_reason=finish_reason
        )
        return _chunk(self._meta, [choice])


def _call_parts(event: ToolCallDelta) -> Iterator[DeltaToolCall]:
    call = event.call
    yield DeltaToolCall(
        index=event.index,
        id=call.id,
        type="function",
        function=DeltaFunction(name=call.name, arguments=""),
    )
    yield DeltaToolCall(index=event.index, function=DeltaFunction(arguments=call.arguments))


def _chunk(
    meta: Meta,
    choices: list[ChunkChoice],
    usage: UsageBody | None = None,
    timings: TimingsBody | None = None,
) -> ChatChunk:
    return ChatChunk(
        id=meta.id,
        created=meta.created,
        model=meta.model,
        choices=choices,
        usage=usage,
        timings=timings,
    )


def _logprobs(scores: tuple[TokenScore, ...]) -> ChoiceLogprobs | None:
    return ChoiceLogprobs(content=[_content_logprob(s) for s in scores]) if scores else None


def _content_logprob(score: TokenScore) -> ContentLogprob:
    return ContentLogprob(
        token=score.token,
        logprob=score.logprob or 0.0,
        bytes=list(score.raw),
        top_logprobs=[
            TokenLogprob(token=a.token, logprob=a.logprob or 0.0, bytes=list(a.raw))
            for a in score.alternatives
        ],
    )
