"""What a client is told, and the whole answer that the events add up to.

Grammar: PromptProgress* (TextDelta | ReasoningDelta | ToolCallDelta)* Finished
Exactly one Finished, last. Failure is an exception, never an event.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from domain.chat import ToolCall
from domain.outputs import PromptProgress, TokenScore
from domain.timings import Timings

FinishReason = Literal["stop", "length", "tool_calls"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `reasoning_tokens` are among the completion's, `cached_tokens` the prompt's."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer, with the scores of the tokens that it shows (when asked for)."""

    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the thoughts."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """One whole tool call; `index` counts the calls of this answer from 0."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of every answer. Its timings are no part of what was said."""

    reason: FinishReason
    usage: Usage
    timings: Timings = field(default=Timings(), compare=False)


ChatEvent = PromptProgress | TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The events of one answer, added up."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    scores: tuple[TokenScore, ...]
    reason: FinishReason
    usage: Usage
    timings: Timings = field(default=Timings(), compare=False)


def assemble(events: Iterable[ChatEvent]) -> ChatAnswer:
    """Add up the events of one answer. Raises ValueError when `Finished` is missing."""
    text: list[str] = []
    reasoning: list[str] = []
    calls: list[ToolCall] = []
    scores: list[TokenScore] = []
    for event in events:
        match event:
            case TextDelta():
                text.append(event.text)
                scores.extend(event.scores)
            case ReasoningDelta():
                reasoning.append(event.text)
            case ToolCallDelta():
                calls.append(event.call)
            case Finished():
                return ChatAnswer(
                    "".join(text),
                    "".join(reasoning),
                    tuple(calls),
                    tuple(scores),
                    event.reason,
                    event.usage,
                    event.timings,
                )
            case PromptProgress():
                pass
    raise ValueError("the events end without Finished")
