"""Grammars over random weights: whatever the model would rather say, the output validates."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.mlx.grammar import Constraint, GrammarCompiler
from adapters.mlx.model import LoadedModel
from adapters.mlx.model import load as load_model
from domain.chat import (
    ChatCommand,
    JsonSchema,
    Lark,
    Message,
    OutputConstraint,
    Regex,
    RequiredToolCall,
    Sampling,
    Tool,
)
from domain.errors import InvalidRequest
from domain.models import ModelCard, ModelId
from domain.outputs import End, Piece
from tests.mlx.conftest import Load
from tests.tiny import make_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    folder = make_model(tmp_path_factory.mktemp("grammar") / "m")
    return load_model(ModelCard(ModelId.parse("m"), "", folder, 0, 512, 0))


def written(model: LoadedModel, constraint: OutputConstraint, seed: int, limit: int = 400) -> str:
    """What coin flips write under a constraint, a token at a time."""
    process = Constraint(model.grammars.compile(constraint), model.vocabulary)
    tokens: list[int] = []
    key = mx.random.key(seed)
    for _ in range(limit):
        allowed = np.ones(model.vocabulary_size, dtype=np.bool_)
        process.mask(allowed)
        logits = mx.where(mx.array(allowed), 0.0, -mx.inf)
        assert not process.error
        if process.complete:
            break
        key, now = mx.random.split(key)
        token = int(mx.random.categorical(logits, key=now).item())
        if token in model.tokenizer.eos_token_ids:
            break
        process.take(token)
        tokens.append(token)
    else:
        return ""
    return b"".join(model.vocabulary.bytes_of(token) for token in tokens).decode()


names = st.text("abcdef", min_size=1, max_size=4)
leaves = st.one_of(
    st.just({"type": "boolean"}),
    st.just({"type": "null"}),
    st.builds(
        lambda low, more: {"type": "integer", "minimum": low, "maximum": low + more},
        st.integers(-50, 50),
        st.integers(0, 50),
    ),
    st.builds(lambda values: {"enum": sorted(values)}, st.sets(names, min_size=1, max_size=3)),
    st.builds(lambda size: {"type": "string", "maxLength": size}, st.integers(0, 5)),
    st.just({"type": "string", "pattern": "^[a-c]{1,3}$"}),
    st.just({"const": "fixed"}),
    st.just({"$ref": "#/$defs/shared"}),
)


def objects(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(names, inner, min_size=1, max_size=3).map(
        lambda properties: {
            "type": "object",
            "properties": properties,
            "required": sorted(properties),
            "additionalProperties": False,
        }
    )


def arrays(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(
        lambda items, low, more: {
            "type": "array",
            "items": items,
            "minItems": low,
            "maxItems": low + more,
        },
        inner,
        st.integers(0, 2),
        st.integers(0, 2),
    )


either = st.lists(leaves, min_size=1, max_size=2).map(lambda options: {"anyOf": options})
schemas = objects(
    st.recursive(leaves | either, lambda inner: objects(inner) | arrays(inner), max_leaves=4)
).map(lambda schema: schema | {"$defs": {"shared": {"type": "integer", "enum": [1, 2, 3]}}})


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(schema=schemas, seed=st.integers(0, 2**32))
def test_whatever_is_written_validates(
    model: LoadedModel, schema: dict[str, Any], seed: int
) -> None:
    text = written(model, JsonSchema(schema), seed)
    if text:  # else it was cut at the limit
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize("seed", range(3))
def test_regexes_and_grammars_are_kept(model: LoadedModel, seed: int) -> None:
    assert written(model, Regex("(yes|no)!"), seed) in ("yes!", "no!")
    assert set(written(model, Lark('start: "a" "b"+ "c"'), seed) or "abc") == set("abc")


def test_calls_of_families_without_json_marks_are_bare_json(model: LoadedModel) -> None:
    tools = (Tool("f", None, {"properties": {"x": {"const": 1}}, "required": ["x"]}),)
    strict = (Tool("f", None, {**tools[0].parameters, "additionalProperties": False}),)
    assert written(model, RequiredToolCall(strict), 1) == '{"name": "f", "arguments": {"x": 1}}'


def test_text_that_spells_an_added_token_is_text(model: LoadedModel) -> None:
    schema: dict[str, Any] = {"enum": ["<|im_start|>"]}
    assert written(model, JsonSchema(schema), 1) == '"<|im_start|>"'
    tools = (Tool("<|im_end|>", None, {"properties": {}, "additionalProperties": False}),)
    call = written(model, RequiredToolCall(tools), 1)
    assert json.loads(call) == {"name": "<|im_end|>", "arguments": {}}


@pytest.mark.parametrize(
    "constraint",
    [
        JsonSchema({"type": "nonsense"}),
        JsonSchema({"type": "object", "properties": {"a": {"not": {}}}}),
        JsonSchema({"$ref": "#/$defs/missing"}),
        Regex("[a-z"),
        Lark("start: missing"),
        Lark("start: start"),
        RequiredToolCall((Tool("f", None, {"type": "object", "properties": 5}),)),
    ],
)
def test_what_can_not_be_compiled_is_refused_with_the_reason(
    model: LoadedModel, constraint: OutputConstraint
) -> None:
    with pytest.raises(InvalidRequest, match="can't be compiled") as caught:
        model.grammars.compile(constraint)
    assert caught.value.param in ("response_format", "tools")


def test_grammars_are_compiled_once(model: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = GrammarCompiler(model.tokenizer, model.vocabulary_size)
    compiler.compile(Regex("ab"))

    def refuse(compiler: GrammarCompiler) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(GrammarCompiler, "_known_tokens", refuse)
    compiler.compile(Regex("ab"))
    with pytest.raises(AssertionError):
        compiler.compile(Regex("abc"))


async def test_a_refused_grammar_comes_before_any_output(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    command = ChatCommand(
        ModelId.parse("m"), (Message.user("x"),), constraint=JsonSchema({"type": "nonsense"})
    )
    with pytest.raises(InvalidRequest):
        await anext(engine.generate(command))
    assert engine.alive


async def test_a_complete_grammar_ends_a_model_that_has_no_end_mark(
    load: Load, tiny_model: Path
) -> None:
    engine = await load(tiny_model)
    command = ChatCommand(
        ModelId.parse("m"), (Message.user("x"),), Sampling(temperature=0), constraint=Regex("abc")
    )
    said = [output async for output in engine.generate(command)]
    assert "".join(output.text for output in said if isinstance(output, Piece)) == "abc"
    assert said[-1] == End("stop")
