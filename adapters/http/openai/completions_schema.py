"""`/v1/completions` on the wire: request, response and chunk (the same shape)."""

from typing import Annotated, Literal

from pydantic import Field

from adapters.http.openai.schema import SamplingFields, TimingsBody, UsageBody
from adapters.http.wire import Items, OmittedIfNone, WireModel

TokenIds = Annotated[Items[Annotated[int, Field(ge=0)]], Field(min_length=1)]
Prompts = Annotated[Items[str] | Items[TokenIds], Field(min_length=1)]


class CompletionRequest(SamplingFields):
    """The body of a completion request. What is not listed and changes the answer is refused."""

    prompt: str | TokenIds | Prompts = Field(union_mode="left_to_right")
    suffix: str | None = None
    echo: bool | None = None
    best_of: int | None = Field(None, ge=1, le=128)
    logprobs: int | None = Field(None, ge=0, le=5)
    add_special_tokens: Literal[True] | None = Field(
        None, description="Extension: a text always gets those of its tokenizer"
    )

    @property
    def prompts(self) -> list[str | tuple[int, ...]]:
        """One or more, each as text or as token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        first = self.prompt[0]
        if isinstance(first, int):
            return [tuple(token for token in self.prompt if isinstance(token, int))]
        return [
            p if isinstance(p, str) else tuple(p) for p in self.prompt if not isinstance(p, int)
        ]


class CompletionLogprobs(WireModel):
    """One entry a token; `text_offset` counts characters of the choice's text.

    The first token of an echoed prompt has null: nothing stands before it.
    """

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
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
    timings: Annotated[TimingsBody | None, OmittedIfNone] = None
