"""What every chunk and every answer of one request repeats, and what dialects count alike."""

import time
import uuid
from dataclasses import dataclass, field

from adapters.http.openai.errors import MissingParameter
from adapters.http.openai.schema import CompletionTokensDetails, PromptTokensDetails, UsageBody
from domain.events import Usage
from domain.models import ModelId


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


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        prompt_tokens_details=PromptTokensDetails(cached_tokens=usage.cached_tokens),
        completion_tokens_details=CompletionTokensDetails(reasoning_tokens=usage.reasoning_tokens),
    )


def model_of(asked: str | None, default: str | None) -> ModelId:
    """Raises MissingParameter when neither names a model."""
    name = asked or default
    if name is None:
        raise MissingParameter("`model` is missing, and the server has no default.", "model")
    return ModelId.parse(name)
