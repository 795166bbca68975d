"""How much one request may hold."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.chat import (
    ChatCommand,
    JsonSchema,
    Lark,
    Message,
    OutputConstraint,
    Regex,
    RequiredToolCall,
    Sampling,
    Text,
    TextCommand,
    Tool,
    ToolCall,
)
from domain.errors import InvalidRequest
from domain.limits import RequestLimits
from domain.models import ModelId

MODEL = ModelId("m")
LIMITS = RequestLimits(max_prompt_chars=100, max_schema_chars=60, max_schema_depth=3)


def chat(
    *messages: Message, tools: tuple[Tool, ...] = (), constraint: OutputConstraint | None = None
) -> ChatCommand:
    return ChatCommand(
        MODEL, messages or (Message.user("hi"),), Sampling(), tools, constraint=constraint
    )


def refused(*commands: ChatCommand | TextCommand) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as refusal:
        LIMITS.check(*commands)
    return refusal.value


def test_what_is_within_the_limits_passes() -> None:
    LIMITS.check(chat(Message.user("x" * 96)))
    LIMITS.check(*[TextCommand(MODEL, "x" * 50)] * 2)
    LIMITS.check(TextCommand(MODEL, (1,) * 100))
    LIMITS.check(chat(constraint=JsonSchema({"properties": {"a": {"type": "null"}}})))


@pytest.mark.parametrize(
    "message",
    [
        Message.user("x" * 97),
        Message("user", (Text("x" * 60), Text("y" * 40))),
        Message("assistant", (), (ToolCall("1", "f", "x" * 99),)),
        Message("assistant", (Text("x"),), reasoning="x" * 99),
        Message("user", (Text("x"),), name="x" * 99),
    ],
)
def test_all_that_becomes_the_prompt_counts(message: Message) -> None:
    error = refused(chat(message))
    assert error.param == "messages"
    assert "max_prompt_chars" in str(error)


def test_many_empty_messages_are_a_long_prompt() -> None:
    assert refused(chat(*[Message.user("")] * 30)).param == "messages"


def test_several_prompts_count_together_and_so_does_a_suffix() -> None:
    assert refused(TextCommand(MODEL, "x" * 60), TextCommand(MODEL, (1,) * 60)).param == "prompt"
    assert refused(TextCommand(MODEL, "x" * 60, suffix="y" * 60)).param == "prompt"


def test_tools_are_part_of_the_prompt() -> None:
    tools = tuple(Tool(f"f{n}", "x" * 20, {"type": "object"}) for n in range(4))
    assert refused(chat(tools=tools)).param == "messages"


@pytest.mark.parametrize(
    "constraint",
    [JsonSchema({"enum": ["x" * 70]}), JsonSchema({"x" * 70: 1}), Regex("x" * 70), Lark("x" * 70)],
)
def test_a_long_schema_or_grammar_is_refused(constraint: OutputConstraint) -> None:
    error = refused(chat(constraint=constraint))
    assert error.param == "response_format"
    assert "max_schema_chars" in str(error)


def test_a_deep_schema_is_refused() -> None:
    error = refused(chat(constraint=JsonSchema({"a": {"b": {"c": {}}}})))
    assert error.param == "response_format"
    assert "max_schema_depth" in str(error)
    assert "max_schema_depth" in str(refused(chat(constraint=JsonSchema({"a": [[[]]]}))))


def test_the_schemas_of_tools_are_schemas() -> None:
    deep = Tool("f", None, {"a": {"b": {"c": {}}}})
    assert refused(chat(tools=(deep,))).param == "tools"
    forced = RequiredToolCall((deep,))
    assert refused(chat(tools=(deep,), constraint=forced)).param == "tools"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=30)
@given(st.dictionaries(st.text(), json_values))
def test_a_schema_is_measured_about_as_it_is_written(schema: dict[str, object]) -> None:
    written = len(json.dumps(schema, ensure_ascii=False, separators=(",", ":")))
    strict = RequestLimits(max_schema_chars=1, max_schema_depth=10**6)
    lax = RequestLimits(max_schema_chars=2 * written + 10, max_schema_depth=10**6)
    lax.check(chat(constraint=JsonSchema(schema)))  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="max_schema_chars"):
        strict.check(chat(constraint=JsonSchema(schema)))  # type: ignore[arg-type]
