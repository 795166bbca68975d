"""How much one request may hold, whatever its model could take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from domain.chat import (
    ChatCommand,
    JsonSchema,
    JsonValue,
    Lark,
    Message,
    OutputConstraint,
    Regex,
    TextCommand,
)
from domain.errors import InvalidRequest

_SIMPLE = frozenset({str, int, float, bool, type(None)})


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
        length = 0
        for command in commands:
            length += _length(command)
            if isinstance(command, ChatCommand):
                length += self._check_schemas(command)
        if length > self.max_prompt_chars:
            param = "messages" if isinstance(commands[0], ChatCommand) else "prompt"
            raise InvalidRequest(
                f"The prompt has {length} characters; this server takes {self.max_prompt_chars} "
                "(`max_prompt_chars`).",
                param,
            )

    def _check_schemas(self, command: ChatCommand) -> int:
        """The characters of its tools' schemas, which are part of the prompt."""
        constraint = _schema(command.constraint)
        if constraint is not None:
            self._check_schema("response_format", constraint)
        return sum(self._check_schema("tools", tool.parameters) for tool in command.tools)

    def _check_schema(self, param: str, schema: JsonValue) -> int:
        size, depth = _measure(schema, self.max_schema_chars)
        if depth > self.max_schema_depth:
            text = f"nested {depth} deep; this server takes {self.max_schema_depth}"
            raise InvalidRequest(f"`{param}` is {text} (`max_schema_depth`).", param)
        if size > self.max_schema_chars:
            text = f"longer than {self.max_schema_chars} characters (`max_schema_chars`)"
            raise InvalidRequest(f"`{param}` is {text}.", param)
        return size


def prompt_length(command: ChatCommand | TextCommand) -> int:
    """In characters; a token given by its number counts as one."""
    tools = command.tools if isinstance(command, ChatCommand) else ()
    return _length(command) + sum(_measure(tool.parameters)[0] for tool in tools)


def _length(command: ChatCommand | TextCommand) -> int:
    """Without the schemas of tools."""
    if isinstance(command, TextCommand):
        return len(command.prompt) + len(command.suffix or "")
    described = sum(len(tool.description or "") for tool in command.tools)
    return described + sum(_message_length(message) for message in command.messages)


def _message_length(message: Message) -> int:
    """With its role, which the template writes: thousands of empty messages are no short prompt."""
    calls = sum(len(call.name) + len(call.arguments) for call in message.tool_calls)
    name = len(message.name or "")
    return len(message.role) + name + len(message.text) + len(message.reasoning) + calls


def _schema(constraint: OutputConstraint | None) -> JsonValue:
    match constraint:
        case JsonSchema(schema):
            return schema
        case Regex(text) | Lark(text):
            return text
        case _:
            return None


def _measure(schema: JsonValue, most: float = math.inf) -> tuple[int, int]:
    """Its characters, roughly as JSON, and how deep it is nested. Without recursion, and no
    further than `most` characters.
    """
    size, depth = 0, 0
    pending: list[tuple[JsonValue, int]] = [(schema, 1)]
    while pending and size <= most:
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
        if len(inner) > most:
            size += len(inner)
        elif _SIMPLE.issuperset(map(type, inner)):  # there may be a hundred thousand
            size += sum(map(len, map(str, inner))) + 2 * len(inner)
        else:
            pending += [(item, level + 1) for item in inner]
    return size, depth
