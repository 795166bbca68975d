"""`/v1/chat/completions` on the wire: request, response and chunk."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from adapters.http.openai.schema import (
    ChoiceReason,
    SamplingFields,
    TimingsBody,
    UsageBody,
    refusal,
)
from adapters.http.wire import AnyJson, Items, OmittedIfNone, WireModel

_MOST_TOOLS = 1024  # OpenAI takes 128


class TextPart(WireModel):
    type: Literal["text"]
    text: str


class RefusalPart(WireModel):
    type: Literal["refusal"]
    refusal: str


class ImageUrl(WireModel):
    url: str


class ImagePart(WireModel):
    type: Literal["image_url"]
    image_url: ImageUrl


Part = Annotated[TextPart | RefusalPart | ImagePart, Field(discriminator="type")]


class FunctionCall(WireModel):
    name: str = Field(min_length=1)
    arguments: str = ""


class RequestToolCall(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class RequestMessage(WireModel):
    role: Literal["developer", "system", "user", "assistant", "tool"]
    content: str | Items[Part] | None = None
    name: str | None = None
    tool_calls: Items[RequestToolCall] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = Field(None, description="Extension: earlier thoughts")
    reasoning: str | None = Field(None, description="Extension: its newer name")

    refusal: str | None = None
    audio: None = Field(None, description="Not supported")
    function_call: None = Field(None, description="Not supported; use tool_calls")

    @model_validator(mode="after")
    def _says_something(self) -> "RequestMessage":
        if self.content is None and self.role != "assistant":
            raise refusal("content", f"a message of role '{self.role}' needs content")
        return self


class FunctionSpec(WireModel):
    name: str = Field(min_length=1, max_length=128)
    description: str | None = None
    parameters: dict[str, AnyJson] | None = None
    strict: bool | None = None


class ToolSpec(WireModel):
    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(WireModel):
    name: str = Field(min_length=1)


class NamedTool(WireModel):
    type: Literal["function"]
    function: NamedFunction


class AllowedToolSet(WireModel):
    mode: Literal["auto", "required"]
    tools: Items[NamedTool] = Field(min_length=1)


class AllowedTools(WireModel):
    type: Literal["allowed_tools"]
    allowed_tools: AllowedToolSet


ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[NamedTool | AllowedTools, Field(discriminator="type")]
)


class TextFormat(WireModel):
    type: Literal["text"]


class JsonObjectFormat(WireModel):
    type: Literal["json_object"]


class NamedSchema(WireModel):
    name: str = Field(min_length=1, max_length=64, pattern="^[a-zA-Z0-9_-]+$")
    description: str | None = None
    json_schema: dict[str, AnyJson] = Field(alias="schema")
    strict: bool | None = None


class JsonSchemaFormat(WireModel):
    type: Literal["json_schema"]
    json_schema: NamedSchema


class RegexFormat(WireModel):
    """Extension: the whole answer matches `regex`."""

    type: Literal["regex"]
    regex: str = Field(min_length=1, max_length=10_000)


class LarkFormat(WireModel):
    """Extension: the answer is a sentence of `grammar`, in llguidance's dialect of Lark."""

    type: Literal["lark"]
    grammar: str = Field(min_length=1, max_length=100_000)


ResponseFormat = Annotated[
    TextFormat | JsonObjectFormat | JsonSchemaFormat | RegexFormat | LarkFormat,
    Field(discriminator="type"),
]


class ChatRequest(SamplingFields):
    """The body of a chat request. What is not listed here and changes the answer is refused."""

    messages: Items[RequestMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1, le=2**63 - 1)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**63 - 1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Annotated[Items[ToolSpec], Field(max_length=_MOST_TOOLS)] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = (
        None
    )
    add_special_tokens: Literal[False] | None = Field(
        None, description="Extension: the chat template has those that belong there"
    )
    chat_template_kwargs: dict[str, AnyJson] | None = Field(
        None, description="Extension: variables for the chat template, from an allow-list"
    )

    @model_validator(mode="after")
    def _belongs_together(self) -> "ChatRequest":
        if self.top_logprobs is not None and not self.logprobs:
            raise refusal("top_logprobs", "`top_logprobs` is only allowed with `logprobs`")
        if self.tool_choice is not None and not self.tools:
            raise refusal("tool_choice", "`tool_choice` is only allowed with `tools`", code=None)
        return self


class TokenLogprob(WireModel):
    token: str
    logprob: float
    bytes: list[int] | None


class ContentLogprob(TokenLogprob):
    top_logprobs: list[TokenLogprob]


class ChoiceLogprobs(WireModel):
    content: list[ContentLogprob] | None
    refusal: None = None


class ResponseToolCall(WireModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class ResponseMessage(WireModel):
    role: Literal["assistant"] = "assistant"
    content: str | None
    refusal: None = None
    reasoning_content: Annotated[str | None, OmittedIfNone] = None
    reasoning: Annotated[str | None, OmittedIfNone] = None  # its newer name
    tool_calls: Annotated[list[ResponseToolCall] | None, OmittedIfNone] = None


class ChatChoice(WireModel):
    index: int = Field(ge=0)
    message: ResponseMessage
    logprobs: ChoiceLogprobs | None
    finish_reason: ChoiceReason


class ChatCompletion(WireModel):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice] = Field(min_length=1)
    usage: UsageBody
    timings: Annotated[TimingsBody | None, OmittedIfNone] = None


class DeltaFunction(WireModel):
    name: Annotated[str | None, OmittedIfNone] = None
    arguments: str


class DeltaToolCall(WireModel):
    """`id`, `type` and `name` come once: openai-python concatenates what is repeated."""

    index: int = Field(ge=0)
    id: Annotated[str | None, OmittedIfNone] = None
    type: Annotated[Literal["function"] | None, OmittedIfNone] = None
    function: DeltaFunction


class Delta(WireModel):
    role: Annotated[Literal["assistant"] | None, OmittedIfNone] = None
    content: Annotated[str | None, OmittedIfNone] = None
    reasoning_content: Annotated[str | None, OmittedIfNone] = None
    reasoning: Annotated[str | None, OmittedIfNone] = None
    tool_calls: Annotated[list[DeltaToolCall] | None, OmittedIfNone] = None


class ChunkChoice(WireModel):
    index: int = Field(0, ge=0)
    delta: Delta
    logprobs: Annotated[ChoiceLogprobs | None, OmittedIfNone] = None
    finish_reason: ChoiceReason | None = None


class ChatChunk(WireModel):
    """A delta holds only what is new."""

    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: list[ChunkChoice]
    usage: Annotated[UsageBody | None, OmittedIfNone] = None
    timings: Annotated[TimingsBody | None, OmittedIfNone] = None
