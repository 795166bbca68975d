"""Output constraints, kept by every engine whatever its weights."""

import json
from typing import Any

import jsonschema
import pytest

from application.ports import Engine
from domain.chat import (
    ChatCommand,
    JsonObject,
    JsonSchema,
    Message,
    RequiredToolCall,
    Sampling,
    Tool,
)
from domain.events import ChatAnswer, assemble
from domain.models import ModelId
from domain.splitter import Splitter

MODEL = ModelId.parse("tiny")
POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 9}, "on": {"type": "boolean"}},
    "required": ["x", "on"],
    "additionalProperties": False,
}
NESTED = {
    "type": "object",
    "properties": {
        "at": {"$ref": "#/$defs/point"},
        "kind": {"enum": ["a", "b", "c"]},
        "tags": {"type": "array", "items": {"const": "t"}, "minItems": 1, "maxItems": 3},
        "maybe": {"anyOf": [{"type": "null"}, {"type": "boolean"}]},
    },
    "required": ["at", "kind", "tags", "maybe"],
    "additionalProperties": False,
    "$defs": {"point": POINT},
}


async def obeyed(engine: Engine, **options: Any) -> ChatAnswer:
    tools = options.get("tools", ())
    forced = isinstance(options.get("constraint"), RequiredToolCall)
    command = ChatCommand(
        MODEL, (Message.user("go"),), Sampling(temperature=1, seed=4, max_tokens=300), **options
    )
    splitter = Splitter(engine.markup, (), tools, forced_call=forced)
    events = [event async for output in engine.generate(command) for event in splitter.feed(output)]
    return assemble(events)


@pytest.mark.parametrize("schema", [POINT, NESTED])
async def test_a_schema_is_kept_and_ends_the_answer(engine: Engine, schema: dict[str, Any]) -> None:
    said = await obeyed(engine, constraint=JsonSchema(schema))
    assert said.reason == "stop"
    jsonschema.validate(json.loads(said.text), schema)
    assert said.text == json.dumps(json.loads(said.text), separators=(",", ":"))


async def test_a_required_call_is_made_with_valid_arguments(engine: Engine) -> None:
    tools = (Tool("draw", "Draws.", NESTED), Tool("point", None, POINT))
    said = await obeyed(engine, tools=tools, constraint=RequiredToolCall(tools))
    (call,) = said.tool_calls
    schema = {tool.name: tool.parameters for tool in tools}[call.name]
    jsonschema.validate(json.loads(call.arguments), schema)
    assert said.reason == "tool_calls"
    assert said.text == ""


async def test_a_named_call_is_the_one(engine: Engine) -> None:
    tools = (Tool("draw", "Draws.", NESTED), Tool("point", None, POINT), Tool("bare"))
    said = await obeyed(engine, tools=tools, constraint=RequiredToolCall(tools[1:2]))
    assert [call.name for call in said.tool_calls] == ["point"]


async def test_a_call_that_is_cut_short_is_text(engine: Engine) -> None:
    tools = (Tool("point", None, POINT),)
    command = ChatCommand(
        MODEL,
        (Message.user("go"),),
        Sampling(temperature=0, max_tokens=1),
        tools=tools,
        constraint=RequiredToolCall(tools),
    )
    splitter = Splitter(engine.markup, (), tools, forced_call=True)
    said = assemble([e async for output in engine.generate(command) for e in splitter.feed(output)])
    if said.reason == "length":  # the scripted engine's tokens hold a whole call
        assert said.tool_calls == ()
        assert said.text != ""


async def test_any_object_is_an_object(engine: Engine) -> None:
    said = await obeyed(engine, constraint=JsonObject())
    if said.reason == "stop":
        assert isinstance(json.loads(said.text), dict)
    else:
        assert said.text.startswith("{")
