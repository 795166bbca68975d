"""How much one request may hold, whatever its model could take."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from domain.chat import (
    ChatCommand,
    JsonSchema,
    JsonValue,
    Lark,
    Message,
    Regex,
    TextCommand,
)
from domain.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Characters, before there are tokens: counting these takes the worker's time from all others.

    max_prompt_chars: of all messages and tools, or prompts, together; a token given by its number
    counts as one. max_schema_chars, max_schema_depth: of each JSON schema or grammar; a depth of 1
    is `{"type": "object"}`.
    """

    max_prompt_chars: int = 2_000_000
    max_schema_chars: int = 200_000
    max_schema_depth: int = 64

    def check(self, *commands: ChatCommand | TextCommand) -> None:
        """What one request asks for. Raises InvalidRequest."""
        length = sum(prompt_length(command) for command in commands)
        if length > self.max_prompt_chars:
            param = "messages" if isinstance(commands[0], ChatCommand) else "prompt"
            raise InvalidRequest(
                f"The prompt has {length} characters; this server takes {self.max_prompt_chars} "
                "(`max_prompt_chars`).",
                param,
            )
        for command in commands:
            if isinstance(command, ChatCommand):
                for param, schema in _schemas(command):
                    self._check_schema(param, schema)

    def _check_schema(self, param: str, schema: JsonValue) -> None:
        size, depth = _measure(schema)
        if depth > self.max_schema_depth:
            text = f"nested {depth} deep; this server takes {self.max_schema_depth}"
            raise InvalidRequest(f"`{param}` is {text} (`max_schema_depth`).", param)
        if size > self.max_schema_chars:
            text = f"{size} characters long; this server takes {self.max_schema_chars}"
            raise InvalidRequest(f"`{param}` is {text} (`max_schema_chars`).", param)


def prompt_length(command: ChatCommand | TextCommand) -> int:
    """In characters; a token given by its number counts as one."""
    if isinstance(command, TextCommand):
        return len(command.prompt) + len(command.suffix or "")
    tools = sum(
        _measure(tool.parameters)[0] + len(tool.description or "") for tool in command.tools
    )
    return tools + sum(_message_length(message) for message in command.messages)


def _message_length(message: Message) -> int:
    """With its role, which the template writes: thousands of empty messages are no short prompt."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    name = len(message.name or "")
    return len(message.role) + name + len(message.text) + len(message.reasoning) + calls


def _schemas(command: ChatCommand) -> Iterator[tuple[str, JsonValue]]:
    """Each with the parameter that holds it."""
    match command.constraint:
        case JsonSchema(schema):
            yield "response_format", schema
        case Regex(text) | Lark(text):
            yield "response_format", text
    for tool in command.tools:
        yield "tools", tool.parameters


def _measure(schema: JsonValue) -> tuple[int, int]:
    """Its characters, roughly as JSON, and how deep it is nested. Without recursion."""
    size, depth = 0, 0
    pending: list[tuple[JsonValue, int]] = [(schema, 1)]
    while pending:
        value, level = pending.pop()
        if isinstance(value, str):
            size += len(value) + 2
            continue
        if isinstance(value, Mapping):
            size += sum(len(key) + 4 for key in value)
            inner = list(value.values())
        elif isinstance(value, list | tuple):
            inner = list(value)
        else:
            size += len(str(value))
            continue
        size += 2
        depth = max(depth, level)
        pending += [(item, level + 1) for item in inner]
    return size, depth
