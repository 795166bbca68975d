"""What a client asks for: messages, tools, sampling, and the two commands that carry them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from domain.errors import InvalidRequest
from domain.models import ModelId

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
_LARGEST = 2**63 - 1

Role = Literal["system", "user", "assistant", "tool"]


@dataclass(frozen=True, slots=True)
class Text:
    text: str


@dataclass(frozen=True, slots=True)
class Image:
    url: str


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call; `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model made; `arguments` is JSON text, as the model wrote it."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of the conversation."""

    role: Role
    parts: tuple[Text | Image, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    answers: str | None = None  # the id of the tool call this message replies to
    name: str | None = None
    reasoning: str = ""  # the thoughts of an earlier assistant turn, for templates that show them

    @property
    def text(self) -> str:
        """The text parts, joined as they stand."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @classmethod
    def user(cls, text: str) -> "Message":
        return cls("user", (Text(text),))

    @classmethod
    def system(cls, text: str) -> "Message":
        return cls("system", (Text(text),))

    @classmethod
    def assistant(cls, text: str) -> "Message":
        return cls("assistant", (Text(text),))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen and when to stop.

    Every number is checked here, so in-process callers get the refusals HTTP clients get.
    Raises InvalidRequest with `param` naming the field.
    """

    max_tokens: int | None = None  # None: to the end of the context; 0: only echo the prompt
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: all
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    top_logprobs: int | None = None  # None: no logprobs at all

    def __post_init__(self) -> None:
        _within("max_tokens", self.max_tokens, 0, _LARGEST)
        _within("temperature", self.temperature, 0, 2)
        _within("top_p", self.top_p, 0, 1)
        _within("top_k", self.top_k, 0, _LARGEST)
        _within("min_p", self.min_p, 0, 1)
        _within("seed", self.seed, -(2**63), 2**64 - 1)
        _within("presence_penalty", self.presence_penalty, -2, 2)
        _within("frequency_penalty", self.frequency_penalty, -2, 2)
        _within("repetition_penalty", self.repetition_penalty, 0.01, 100)
        _within("top_logprobs", self.top_logprobs, 0, 20)
        for token, bias in self.logit_bias.items():
            _within("logit_bias", token, 0, _LARGEST)
            _within("logit_bias", bias, -100, 100)
        if any(not stop for stop in self.stop):
            raise InvalidRequest("`stop` must not hold an empty string.", "stop")


def _within(param: str, value: float | None, low: float, high: float) -> None:
    if value is not None and not low <= value <= high:  # NaN fails this too
        open_end = high == _LARGEST and value < low
        bounds = f"at least {low}" if open_end else f"between {low} and {high}"
        raise InvalidRequest(f"`{param}` must be {bounds}.", param)


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The answer is one JSON object."""


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """The answer is JSON that validates against `schema`."""

    schema: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Regex:
    """The whole answer matches `pattern`."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Lark:
    """The answer is a sentence of a grammar, in llguidance's dialect of Lark."""

    grammar: str


@dataclass(frozen=True, slots=True)
class RequiredToolCall:
    """The answer is a call of one of these tools, its arguments valid for the tool's schema."""

    tools: tuple[Tool, ...]


OutputConstraint = JsonObject | JsonSchema | Regex | Lark | RequiredToolCall


@dataclass(frozen=True, slots=True)
class ChatCommand:
    """Answer this conversation. Raises InvalidRequest when there is none."""

    model: ModelId
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    tools: tuple[Tool, ...] = ()
    parallel_tool_calls: bool = True  # False: the answer ends with its first tool call
    constraint: OutputConstraint | None = None  # enforced token by token, whatever the weights
    template_options: Mapping[str, JsonValue] = field(default_factory=dict)
    cache_scope: str = ""  # prompts are shared only within a scope

    def __post_init__(self) -> None:
        if not self.messages:
            raise InvalidRequest("`messages` must hold at least one message.", "messages")


@dataclass(frozen=True, slots=True)
class TextCommand:
    """Continue this text, given as it is or as token ids.

    suffix: the text that comes after, for models that know how to fill in the middle.
    echo: the answer begins with the prompt (and its scores, when scores are asked for).
    """

    model: ModelId
    prompt: str | tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    suffix: str | None = None
    echo: bool = False
    cache_scope: str = ""


def require_text(messages: Sequence[Message]) -> None:
    """For engines that only read. Raises InvalidRequest when a message holds an image."""
    if any(isinstance(part, Image) for message in messages for part in message.parts):
        raise InvalidRequest(
            "This model reads text only, no images (`image_url`), and no URL is ever fetched.",
            "messages",
        )
