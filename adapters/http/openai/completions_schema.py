"""`/v1/completions` on the wire: request, response and chunk (the same shape)."""

from typing import Annotated, Literal

from pydantic import Field

from adapters.http.openai.schema import OmittedIfNone, SamplingFields, UsageBody, WireModel

TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """The body of a completion request. What is not listed and changes the answer is refused."""

    prompt: str | TokenIds = Field(union_mode="left_to_right")
    logprobs: int | None = Field(None, ge=0, le=5)


class CompletionLogprobs(WireModel):
    """One entry a token; `text_offset` counts characters of the choice's text."""

    tokens: list[str]
    token_logprobs: list[float]
    top_logprobs: list[dict[str, float]]
    text_offset: list[int]


class CompletionChoice(WireModel):
    index: int = Field(ge=0)
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Completion(WireModel):
    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Annotated[UsageBody | None, OmittedIfNone] = None
