"""What every chunk and every answer of one request repeats, and what dialects count alike."""

import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from adapters.http.errors import MissingParameter
from adapters.http.openai.schema import CompletionTokensDetails, PromptTokensDetails, UsageBody
from domain.errors import InvalidRequest
from domain.events import Usage
from domain.models import ModelId

# What a request for the model waits for just now, in a few words.
ReasonToWait = Callable[[ModelId], str]


@dataclass(frozen=True, slots=True)
class DialectOptions:
    """patience: seconds before a stream without a token says that it is waiting.
    max_choices: the most choices one prompt may ask for.
    """

    default_model: str | None = None
    patience: float = 5.0
    max_choices: int = 8


@dataclass(frozen=True, slots=True)
class Meta:
    """id: unique, with the prefix clients know. created: unix seconds."""

    id: str
    model: str
    includes_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    @classmethod
    def new(cls, prefix: str, model: ModelId, *, includes_usage: bool) -> "Meta":
        return cls(f"{prefix}-{uuid.uuid4().hex}", str(model), includes_usage)


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


def model_of(asked: str | None, default: str | None) -> ModelId:
    """Raises MissingParameter when neither names a model."""
    name = asked or default
    if name is None:
        raise MissingParameter("`model` is missing, and the server has no default.", "model")
    return ModelId.parse(name)


def within_cap(param: str, asked: int | None, cap: int) -> int:
    """How many choices. Raises InvalidRequest beyond the server's cap."""
    if asked is not None and asked > cap:
        raise InvalidRequest(f"`{param}` must be at most {cap} on this server.", param)
    return asked or 1
