"""What every chunk and every answer of one request repeats, and what dialects count alike."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from adapters.http.errors import MissingParameter
from adapters.http.openai.schema import (
    CompletionTokensDetails,
    PromptTokensDetails,
    TimingsBody,
    UsageBody,
)
from domain.errors import InvalidRequest
from domain.events import Usage
from domain.limits import RequestLimits
from domain.models import ModelId
from domain.timings import Timings

# What a request for the model waits for just now, in a few words.
ReasonToWait = Callable[[ModelId], str]


@dataclass(frozen=True, slots=True)
class DialectOptions:
    """patience: seconds before a stream without a token says that it is waiting.
    max_choices: the most choices one prompt may ask for. capacity: answers that are given or wait
    at one time. seconds: that one request may take. limits: of what it may hold.
    """

    default_model: str | None = None
    patience: float = 5.0
    max_choices: int = 8
    capacity: int = 1056
    seconds: float | None = None
    limits: RequestLimits = field(default_factory=RequestLimits)


@dataclass(frozen=True, slots=True)
class Meta:
    """id: unique, with the prefix clients know. created: unix seconds."""

    id: str
    model: str
    includes_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))
    includes_timings: bool = False

    @classmethod
    def new(
        cls, prefix: str, model: ModelId, *, includes_usage: bool, includes_timings: bool
    ) -> "Meta":
        name = f"{prefix}-{uuid.uuid4().hex}"
        return cls(name, str(model), includes_usage, includes_timings=includes_timings)


class Ended(Protocol):
    """An answer that has come to its end, whole or as its last event."""

    @property
    def usage(self) -> Usage: ...

    @property
    def timings(self) -> Timings: ...


def usage_body(prompts: Sequence[Usage], all_choices: Sequence[Usage]) -> UsageBody:
    """prompts: one choice of each prompt, since a prompt counts once for all of its choices."""
    prompt_tokens = sum(usage.prompt_tokens for usage in prompts)
    completion_tokens = sum(usage.completion_tokens for usage in all_choices)
    return UsageBody(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=PromptTokensDetails(
            cached_tokens=sum(usage.cached_tokens for usage in prompts)
        ),
        completion_tokens_details=CompletionTokensDetails(
            reasoning_tokens=sum(usage.reasoning_tokens for usage in all_choices)
        ),
    )


def timings_body(
    meta: Meta, prompts: Sequence[Ended], all_choices: Sequence[Ended]
) -> TimingsBody | None:
    """None unless asked for. Tokens count as in `usage_body`; times are the slowest choice's."""
    if not meta.includes_timings:
        return None
    cached = sum(ended.usage.cached_tokens for ended in prompts)
    prompt = sum(ended.usage.prompt_tokens for ended in prompts) - cached
    predicted = sum(ended.usage.completion_tokens for ended in all_choices)
    prompt_ms = _ms(max(ended.timings.prefill for ended in all_choices))
    predicted_ms = _ms(max(ended.timings.decode for ended in all_choices))
    return TimingsBody(
        queue_ms=_ms(max(ended.timings.queue for ended in all_choices)),
        ttft_ms=_ms(max(ended.timings.first_token for ended in all_choices)),
        total_ms=_ms(max(ended.timings.total for ended in all_choices)),
        cache_n=cached,
        prompt_n=prompt,
        prompt_ms=prompt_ms,
        prompt_per_token_ms=_ratio(prompt_ms, prompt),
        prompt_per_second=_ratio(1000 * prompt, prompt_ms),
        predicted_n=predicted,
        predicted_ms=predicted_ms,
        predicted_per_token_ms=_ratio(predicted_ms, predicted),
        predicted_per_second=_ratio(1000 * predicted, predicted_ms),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)


def _ratio(amount: float, of: float) -> float:
    return round(amount / of, 3) if of else 0.0


def model_of(asked: str | None, default: str | None) -> ModelId:
    """Raises MissingParameter when neither names a model."""
    name = asked or default
    if name is None:
        raise MissingParameter("`model` is missing, and the server has no default.", "model")
    return ModelId.parse(name)


def check_capacity(param: str, answers: int, capacity: int) -> None:
    """Raises InvalidRequest for what no retry could ever get."""
    if answers > capacity:
        text = f"`{param}` asks for {answers} answers, and this server takes at most {capacity}"
        raise InvalidRequest(f"{text} at one time (`max_batch_size` and `max_waiting`).", param)


def within_cap(param: str, asked: int | None, cap: int) -> int:
    """How many choices. Raises InvalidRequest beyond the server's cap."""
    if asked is not None and asked > cap:
        raise InvalidRequest(f"`{param}` must be at most {cap} on this server.", param)
    return asked or 1
