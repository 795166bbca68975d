"""How a model family writes thoughts and tool calls, read off its tokenizer by mlx-lm."""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mlx_lm.tokenizer_utils import TokenizerWrapper

from domain.chat import Tool, ToolCall
from domain.outputs import Markup, no_calls

# What mlx-lm's parsers raise on text that is no call, or a truncated one.
_MALFORMED = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)


def make_markup(tokenizer: TokenizerWrapper) -> Markup:
    thinking = (tokenizer.think_start, tokenizer.think_end) if tokenizer.has_thinking else None
    if not tokenizer.has_tool_calling:
        return Markup(thinking, parse_forced=ForcedCall(("", "")))
    marks = (tokenizer.tool_call_start, tokenizer.tool_call_end or "")
    parse = FamilyCalls(tokenizer.tool_parser) if tokenizer.tool_parser else no_calls
    return Markup(thinking, marks, parse, ForcedCall(marks))


def tool_to_dict(tool: Tool) -> dict[str, Any]:
    """OpenAI's form, which chat templates and mlx-lm's parsers read."""
    function = {"name": tool.name, "description": tool.description or ""}
    return {"type": "function", "function": function | {"parameters": tool.parameters}}


@dataclass(frozen=True, slots=True)
class ForcedCall:
    """A forced call is JSON, between the family's own marks or (in most families) without.

    Its arguments are kept as they were written: the grammar made them valid.
    """

    marks: tuple[str, str]

    def __call__(self, text: str, tools: tuple[Tool, ...]) -> tuple[ToolCall, ...]:
        text = text.strip().removeprefix(self.marks[0]).removesuffix(self.marks[1]).strip()
        try:
            name = json.loads(text)["name"]
        except _MALFORMED:
            return ()
        _, _, rest = text.partition(', "arguments": ')
        return (_new_call(name, rest.removesuffix("}")),)


@dataclass(frozen=True, slots=True)
class FamilyCalls:
    """Calls as one of mlx-lm's parsers reads them.

    A class, as is the one above: a closure could not leave an engine's process.
    """

    parse: Callable[[str, list[dict[str, Any]]], Any]  # a function of a module

    def __call__(self, text: str, tools: tuple[Tool, ...]) -> tuple[ToolCall, ...]:
        offered = {tool.name for tool in tools}
        try:
            parsed = self.parse(text, [tool_to_dict(tool) for tool in tools])
            found = parsed if isinstance(parsed, list) else [parsed]
            calls = tuple(_tool_call(call) for call in found)
        except _MALFORMED:
            return ()
        return calls if all(call.name in offered for call in calls) else ()


def _tool_call(call: dict[str, Any]) -> ToolCall:
    """Raises a malformed-text error when there is no name, or the arguments are no object."""
    arguments = call.get("arguments", {})
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if not isinstance(arguments, dict):
        raise TypeError("arguments must be an object")
    name = call["name"]
    if not isinstance(name, str):
        raise TypeError("a name must be a string")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode()  # an escaped lone surrogate can't be sent
    return _new_call(name, text)


def _new_call(name: str, arguments: str) -> ToolCall:
    """The id is ours: what a model writes for one is not unique."""
    return ToolCall(f"call_{uuid.uuid4().hex[:24]}", name, arguments)
