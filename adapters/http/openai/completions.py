"""The legacy completion dialect: a body into commands, events into an answer or into chunks."""

import codecs
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fastapi import APIRouter, Request

from adapters.http.errors import failure_frame
from adapters.http.keys import caller_of
from adapters.http.openai.completions_schema import (
    Completion,
    CompletionChoice,
    CompletionLogprobs,
    CompletionRequest,
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
from domain.chat import TextCommand
from domain.errors import InvalidRequest
from domain.events import ChatAnswer, ChatEvent, Finished, FinishReason, TextDelta
from domain.outputs import TokenScore
from domain.rate_limits import expected_tokens

CompleteText = Callable[[TextCommand], AsyncGenerator[ChatEvent, None]]

_DEFAULT_MAX_TOKENS = 16  # OpenAI's
_MOST_PROMPTS = 512


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request asks for: n choices for each prompt, out of best_of."""

    prompts: tuple[TextCommand, ...]
    n: int
    best_of: int
    shows_scores: bool

    @property
    def commands(self) -> list[TextCommand]:
        """The choices of the first prompt, then those of the next."""
        return [one for prompt in self.prompts for one in alternatives(prompt, self.best_of)]


def router(
    complete: CompleteText, reason_to_wait: ReasonToWait, options: DialectOptions
) -> APIRouter:
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
        caller = caller_of(request)
        plan = to_plan(body, options, caller.access.cache_scope)
        model = plan.prompts[0].model
        options.limits.check(*plan.prompts)
        caller.access.require(model)
        meta = Meta.new(
            "cmpl",
            model,
            includes_usage=body.includes_usage,
            includes_timings=body.includes_timings,
        )
        commands = plan.commands
        answers_to_all = side_by_side([complete(command) for command in commands])
        expected = expected_tokens(commands, plan.best_of)
        choices = caller.metered(answers_to_all, plan.best_of, expected)
        if body.stream:
            chunks = frames(choices, plan, meta)
            reason = partial(reason_to_wait, model)
            return SseResponse(chunks, failure_frame, options.patience, reason, options.seconds)
        whole = assemble_all(choices, len(commands))
        answers = await while_connected(request.receive, whole, options.seconds)
        return render(answers, plan, meta)

    return routes


def to_plan(body: CompletionRequest, options: DialectOptions, cache_scope: str = "") -> Plan:
    """Pure. Raises InvalidRequest."""
    n = within_cap("n", body.n, options.max_choices)
    best_of = max(within_cap("best_of", body.best_of, options.max_choices), n)
    if body.best_of is not None and body.best_of < n:
        raise InvalidRequest("`best_of` must be at least `n`.", "best_of")
    if best_of > n and body.stream:
        raise InvalidRequest("`best_of` can't be streamed: the best is known last.", "best_of")
    if body.echo and body.suffix:
        raise InvalidRequest("`echo` can't be combined with `suffix`.", "echo")
    max_tokens = _DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not body.echo:
        raise InvalidRequest("`max_tokens` must be at least 1 without `echo`.", "max_tokens")
    # The best is the one with the likeliest tokens, so they are scored for the choice itself.
    scored = 0 if best_of > n else None
    sampling = body.sampling(max_tokens, scored if body.logprobs is None else body.logprobs)
    if len(body.prompts) > _MOST_PROMPTS:
        raise InvalidRequest(f"`prompt` must hold at most {_MOST_PROMPTS} prompts.", "prompt")
    param = "prompt" if len(body.prompts) > 1 else "best_of" if body.best_of else "n"
    check_capacity(param, len(body.prompts) * best_of, options.capacity)
    model = model_of(body.model, options.default_model)
    commands = (
        TextCommand(
            model,
            prompt,
            sampling,
            suffix=body.suffix or None,
            echo=bool(body.echo),
            cache_scope=cache_scope,
        )
        for prompt in body.prompts
    )
    return Plan(tuple(commands), n, best_of, body.logprobs is not None)


def render(answers: Sequence[ChatAnswer], plan: Plan, meta: Meta) -> Completion:
    """The whole answer as one body; the answers come prompt by prompt."""
    usages = [answer.usage for answer in answers]
    shown: list[ChatAnswer] = []
    for start in range(0, len(answers), plan.best_of):
        candidates = answers[start : start + plan.best_of]
        best_first = sorted(candidates, key=_likelihood, reverse=True)
        shown += candidates if plan.best_of == plan.n else best_first[: plan.n]
    choices = [
        CompletionChoice(
            index=index,
            text=answer.text,
            logprobs=_logprobs(answer.scores, _Offsets()) if plan.shows_scores else None,
            finish_reason=_reason(answer.reason),
        )
        for index, answer in enumerate(shown)
    ]
    usage = usage_body(usages[:: plan.best_of], usages)
    return _completion(meta, choices, usage, timings_body(meta, answers[:: plan.best_of], answers))


def _likelihood(answer: ChatAnswer) -> float:
    """The mean log-probability of its tokens."""
    known = [score.logprob for score in answer.scores if score.logprob is not None]
    return sum(known) / max(len(known), 1)


async def frames(
    choices: AsyncGenerator[Choice, None], plan: Plan, meta: Meta
) -> AsyncGenerator[bytes, None]:
    """The answers as chunks, ending in `[DONE]`. Closing it closes `choices`."""
    offsets = [_Offsets() for _ in range(len(plan.prompts) * plan.n)]
    templates = [
        FrameTemplate(_chunk(meta, index, HOLE)) for index in range(len(plan.prompts) * plan.n)
    ]
    ended: dict[int, Finished] = {}
    async with aclosing(choices):
        async for index, event in choices:
            if isinstance(event, TextDelta) and not event.scores:
                yield templates[index].fill(event.text)
            elif isinstance(event, TextDelta):
                logprobs = _logprobs(event.scores, offsets[index])
                yield frame(_chunk(meta, index, event.text, logprobs).model_dump_json())
            elif isinstance(event, Finished):
                ended[index] = event
                last = _chunk(meta, index, "", None, _reason(event.reason))
                if len(ended) == len(offsets) and not meta.includes_usage:
                    last.timings = _timings(meta, plan, ended)
                yield frame(last.model_dump_json())
    if meta.includes_usage:
        in_order = [ended[index].usage for index in sorted(ended)]
        usage = usage_body(in_order[:: plan.n], in_order)
        chunk = _completion(meta, [], usage, _timings(meta, plan, ended))
        yield frame(chunk.model_dump_json())
    yield frame("[DONE]")


def _timings(meta: Meta, plan: Plan, ended: dict[int, Finished]) -> TimingsBody | None:
    in_order = [ended[index] for index in sorted(ended)]
    return timings_body(meta, in_order[:: plan.n], in_order)


def _reason(reason: FinishReason) -> Literal["stop", "length"]:
    return "length" if reason == "length" else "stop"


def _chunk(
    meta: Meta,
    index: int,
    text: str,
    logprobs: CompletionLogprobs | None = None,
    reason: Literal["stop", "length"] | None = None,
) -> Completion:
    choice = CompletionChoice(index=index, text=text, logprobs=logprobs, finish_reason=reason)
    return _completion(meta, [choice])


def _completion(
    meta: Meta,
    choices: list[CompletionChoice],
    usage: UsageBody | None = None,
    timings: TimingsBody | None = None,
) -> Completion:
    return Completion(
        id=meta.id,
        created=meta.created,
        model=meta.model,
        choices=choices,
        usage=usage,
        timings=timings,
    )


class _Offsets:
    """Where in the choice's text each token begins, in characters."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._at = 0

    def next(self, score: TokenScore) -> int:
        at = self._at
        self._at += len(self._decoder.decode(score.raw))
        return at


def _logprobs(scores: tuple[TokenScore, ...], offsets: _Offsets) -> CompletionLogprobs | None:
    if not scores:
        return None
    return CompletionLogprobs(
        tokens=[_token(score) for score in scores],
        token_logprobs=[score.logprob for score in scores],
        top_logprobs=[_top(score) for score in scores],
        text_offset=[offsets.next(score) for score in scores],
    )


def _top(score: TokenScore) -> dict[str, float] | None:
    if score.logprob is None:
        return None
    return {_token(a): a.logprob for a in score.alternatives if a.logprob is not None}


def _token(score: TokenScore) -> str:
    """As OpenAI writes tokens that are no text of their own: `bytes:\\xe2\\x82`."""
    try:
        return score.raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in score.raw)
