"""Frames that are filled into templates are, byte for byte, those of the wire models."""

from collections.abc import AsyncGenerator, Sequence

from hypothesis import given
from hypothesis import strategies as st

from adapters.http.openai import chat, completions
from adapters.http.openai.chat_schema import (
    ChatChunk,
    ChoiceLogprobs,
    ChunkChoice,
    ContentLogprob,
    Delta,
    DeltaFunction,
    DeltaToolCall,
    TokenLogprob,
)
from adapters.http.openai.completions_schema import Completion, CompletionChoice
from adapters.http.openai.meta import Meta, usage_body
from adapters.http.openai.schema import UsageBody
from adapters.http.sse import frame
from application.choices import Choice
from domain.chat import TextCommand, ToolCall
from domain.errors import InvalidRequest
from domain.events import ChatEvent, Finished, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from domain.models import ModelId
from domain.outputs import PromptProgress, TokenScore

_COUNT = 3


def parsed(name: str) -> ModelId | None:
    try:
        return ModelId.parse(name)
    except InvalidRequest:
        return None


awkward = st.sampled_from(
    ['"', "\\", "\0", "\x1f", "\x7f", "\n", "\u2028", "é", "👩‍🚀", '"}]', "</"]
)
texts = st.text() | st.lists(awkward).map("".join)
names = texts.map(parsed).flatmap(lambda name: st.just(name) if name else st.nothing())
counts = st.integers(0, 2**40)
metas = st.builds(
    Meta, st.text("abc-09", min_size=1), names.map(str) | st.just("a/b"), st.booleans(), counts
)
logprobs = st.none() | st.floats(-1e3, 0)
tokens = st.builds(TokenScore, texts, st.binary(), logprobs)
scores = st.lists(
    st.builds(TokenScore, texts, st.binary(), logprobs, st.lists(tokens, max_size=2).map(tuple)),
    max_size=2,
).map(tuple)
usages = st.builds(Usage, counts, counts, counts, counts)
unscored: st.SearchStrategy[ChatEvent] = st.one_of(
    st.builds(TextDelta, texts),
    st.builds(ReasoningDelta, texts),
    st.builds(ToolCallDelta, st.integers(0, 3), st.builds(ToolCall, texts, texts, texts)),
    st.builds(Finished, st.sampled_from(["stop", "length", "tool_calls"]), usages),
    st.builds(PromptProgress, counts, counts),
)
scored = st.builds(TextDelta, texts, scores)
said = st.lists(st.tuples(st.integers(0, _COUNT - 1), unscored | scored))


async def generated(choices: Sequence[Choice]) -> AsyncGenerator[Choice, None]:
    for choice in choices:
        yield choice


@given(metas, said)
async def test_chat_frames_are_those_of_the_models(meta: Meta, choices: list[Choice]) -> None:
    written = [data async for data in chat.frames(generated(choices), _COUNT, meta)]

    def chunk(choices: list[ChunkChoice], usage: UsageBody | None = None) -> bytes:
        body = ChatChunk(
            id=meta.id, created=meta.created, model=meta.model, choices=choices, usage=usage
        )
        return frame(body.model_dump_json())

    opening = Delta(role="assistant", content="")
    roles = [ChunkChoice(index=n, delta=opening) for n in range(_COUNT) if choices]
    expected = [chunk([c]) for c in [*roles, *(c for n, e in choices for c in chat_choices(n, e))]]
    if meta.includes_usage:
        ended = [event.usage for _, event in choices if isinstance(event, Finished)]
        expected.append(chunk([], usage_body(ended[:1], ended)))
    assert written == [*expected, b"data: [DONE]\n\n"]


def chat_choices(index: int, event: ChatEvent) -> list[ChunkChoice]:
    match event:
        case TextDelta():
            delta = Delta(content=event.text)
            return [ChunkChoice(index=index, delta=delta, logprobs=chat_logprobs(event.scores))]
        case ReasoningDelta():
            delta = Delta(reasoning_content=event.text, reasoning=event.text)
            return [ChunkChoice(index=index, delta=delta)]
        case ToolCallDelta():
            call = event.call
            function = DeltaFunction(name=call.name, arguments="")
            first = DeltaToolCall(index=event.index, id=call.id, type="function", function=function)
            rest = DeltaToolCall(
                index=event.index, function=DeltaFunction(arguments=call.arguments)
            )
            deltas = [Delta(tool_calls=[part]) for part in (first, rest)]
            return [ChunkChoice(index=index, delta=delta) for delta in deltas]
        case Finished():
            return [ChunkChoice(index=index, delta=Delta(), finish_reason=event.reason)]
        case PromptProgress():
            return []


def chat_logprobs(scores: tuple[TokenScore, ...]) -> ChoiceLogprobs | None:
    def entry(score: TokenScore) -> TokenLogprob:
        return TokenLogprob(token=score.token, logprob=score.logprob or 0.0, bytes=list(score.raw))

    content = [
        ContentLogprob(**dict(entry(score)), top_logprobs=[entry(a) for a in score.alternatives])
        for score in scores
    ]
    return ChoiceLogprobs(content=content) if content else None


@given(metas, st.lists(st.tuples(st.integers(0, _COUNT - 1), unscored)))
async def test_completion_frames_are_those_of_the_models(meta: Meta, choices: list[Choice]) -> None:
    plan = completions.Plan((TextCommand(ModelId.parse("m"), "p"),), _COUNT, _COUNT, False)
    written = [data async for data in completions.frames(generated(choices), plan, meta)]
    expected = [
        Completion(id=meta.id, created=meta.created, model=meta.model, choices=[choice])
        for choice in (completion_choice(n, event) for n, event in choices)
        if choice
    ]
    frames = [frame(body.model_dump_json()) for body in expected]
    assert written[: len(frames)] == frames
    assert len(written) == len(frames) + meta.includes_usage + 1


def completion_choice(index: int, event: ChatEvent) -> CompletionChoice | None:
    match event:
        case TextDelta():
            return CompletionChoice(index=index, text=event.text, logprobs=None, finish_reason=None)
        case Finished():
            reason = "length" if event.reason == "length" else "stop"
            return CompletionChoice(index=index, text="", logprobs=None, finish_reason=reason)
        case _:
            return None
