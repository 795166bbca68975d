"""A reply that keeps an output constraint, for an engine that has no weights to constrain."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from domain.chat import JsonObject, JsonSchema, Lark, OutputConstraint, Regex, RequiredToolCall
from domain.errors import InvalidRequest

_MOST = 10_000


def conform(reply: str, constraint: OutputConstraint) -> str:
    """The reply if it is JSON already, else the smallest JSON that the constraint allows.

    Raises InvalidRequest for grammars that are not JSON.
    """
    try:
        smallest = json.dumps(_instance(constraint), separators=(",", ":"))
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        raise InvalidRequest(
            "The scripted engine can't read this schema.", "response_format"
        ) from None
    return reply if _is_object(reply) else smallest


def _instance(constraint: OutputConstraint) -> Any:
    match constraint:
        case Regex() | Lark():
            raise InvalidRequest("The scripted engine knows no such grammar.", "response_format")
        case JsonObject():
            return {}
        case JsonSchema():
            return _smallest(constraint.schema, constraint.schema)
        case RequiredToolCall():
            tool = constraint.tools[0]
            arguments = _smallest({**tool.parameters, "type": "object"}, tool.parameters)
            return {"name": tool.name, "arguments": arguments}


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _smallest(schema: Any, root: Any) -> Any:
    """The smallest value of a schema, for the keywords that client libraries write."""
    if not isinstance(schema, Mapping):
        return {}
    if "$ref" in schema:
        target = root
        for step in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[step]
        return _smallest(target, root)
    for choice in ("enum", "anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            first = schema[choice][0]
            return first if choice == "enum" else _smallest(first, root)
    return schema["const"] if "const" in schema else _of_type(schema, root)


def _of_type(schema: Mapping[str, Any], root: Any) -> Any:
    kind = schema.get("type", "object")
    match kind[0] if isinstance(kind, Sequence) and not isinstance(kind, str) else kind:
        case "object":
            properties = schema.get("properties", {})
            return {name: _smallest(properties.get(name, {}), root) for name in _required(schema)}
        case "array":
            return [_smallest(schema.get("items", {}), root)] * _count(schema.get("minItems", 0))
        case "integer" | "number":
            return schema.get("minimum", schema.get("maximum", 0))
        case "string":
            return "x" * _count(schema.get("minLength", 0))
        case "boolean":
            return False
        case _:
            return None


def _required(schema: Mapping[str, Any]) -> list[str]:
    return list(schema.get("required", ()))


def _count(asked: Any) -> int:
    """Raises ValueError for what would fill the memory."""
    if not 0 <= int(asked) <= _MOST:
        raise ValueError("too many")
    return int(asked)
