"""What an engine says, and how its model family marks up what it writes.

Every generation says: PromptProgress, an Echo if asked for, then Pieces, then exactly one End.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from domain.chat import Tool, ToolCall

StopCause = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class PromptProgress:
    """The prompt is accepted; `processed` of its `total` tokens are in the KV cache."""

    processed: int
    total: int
    cached: int = 0  # tokens that came from the prefix cache
    opens_thinking: bool = False  # the chat template ended inside the thoughts


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token with its log-probability, and the likeliest tokens at its place."""

    token: str
    raw: bytes
    logprob: float | None  # None for a token that nothing stands before
    alternatives: tuple["TokenScore", ...] = ()


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt, for commands that want it back, with a score a token when asked for."""

    text: str
    scores: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """One generated token. The text is empty while a UTF-8 character is incomplete."""

    text: str
    score: TokenScore | None = None


@dataclass(frozen=True, slots=True)
class End:
    """The model stopped by itself, or reached a limit. `text` is what was still held back."""

    reason: StopCause
    text: str = ""


EngineOutput = PromptProgress | Echo | Piece | End


CallParser = Callable[[str, tuple[Tool, ...]], tuple[ToolCall, ...]]


def no_calls(text: str, tools: tuple[Tool, ...]) -> tuple[ToolCall, ...]:
    """The parser of a family that has no format for tool calls."""
    return ()


@dataclass(frozen=True, slots=True)
class Markup:
    """How one model family writes its thoughts and calls. Data handed over by the engine.

    `parse_calls` gets what stands between the call markers; it returns no call for text
    that is none, and never raises. An empty closing marker means "to the end of the answer".
    `parse_forced` does the same for an answer that a RequiredToolCall made one JSON call.
    """

    thinking: tuple[str, str] | None = None
    tool_call: tuple[str, str] | None = None
    parse_calls: CallParser = no_calls
    parse_forced: CallParser = no_calls
