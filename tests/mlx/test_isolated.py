"""MLX in a process of its own says what it says in a thread."""

import asyncio
import os
import pickle
import signal
from functools import partial
from pathlib import Path

import pytest
from mlx_lm.tool_parsers import json_tools

from adapters.isolated.engine import IsolatedEngine
from adapters.isolated.loader import IsolatingLoader
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.markup import FamilyCalls, ForcedCall
from domain.chat import ChatCommand, JsonSchema, Message, Sampling, Tool
from domain.errors import ContextOverflow, EngineFailed, InvalidRequest
from domain.models import ModelCard, ModelId
from domain.outputs import Markup
from tests.generations import outputs
from tests.mlx.conftest import Load
from tests.plans import plan_for

TINY = ModelId.parse("tiny")
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]}
WEATHER = Tool("get_weather", None, {"type": "object"})
CALL = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'


def chat(text: str, **sampling: object) -> ChatCommand:
    settings = {"temperature": 0.8, "seed": 3, "max_tokens": 40} | sampling
    return ChatCommand(TINY, (Message.user(text),), Sampling(**settings))  # type: ignore[arg-type]


COMMANDS = [
    chat("hello"),
    chat("greedy", temperature=0),
    chat("scored", top_logprobs=3),
    ChatCommand(TINY, (Message.user("go"),), Sampling(seed=1), constraint=JsonSchema(SCHEMA)),
]


async def test_answers_and_refusals_are_the_same_and_a_kill_is_typed(
    load: Load, tiny_model: Path
) -> None:
    here = await load(tiny_model)
    card = ModelCard(TINY, "", tiny_model, 400_000, 512, 0)
    make = partial(MlxEngineLoader, MlxOptions())
    there = await IsolatingLoader(make(), make, lambda model: True).load(card, plan_for(card))
    assert isinstance(there, IsolatedEngine)
    assert (there.footprint, there.slots) == (here.footprint, here.slots)
    for command in COMMANDS:
        assert await outputs(there, command) == await outputs(here, command)
    with pytest.raises(ContextOverflow) as overflow:
        await outputs(there, chat("word " * 600))
    assert overflow.value.context_length == 512
    with pytest.raises(InvalidRequest, match="259 tokens"):
        await outputs(there, chat("hello", logit_bias={259: 1.0}))

    generations = [there.generate(chat(f"{n}", max_tokens=400)) for n in range(8)]
    for generation in generations:
        await anext(generation)
    os.kill(there.pid, signal.SIGKILL)
    for generation in generations:
        with pytest.raises(EngineFailed, match="SIGKILL"):
            async for _ in generation:
                pass
    assert await outputs(here, COMMANDS[0])
    await asyncio.wait_for(there.close(), 20)


def test_markup_crosses_the_border_of_a_process_and_still_parses() -> None:
    family = FamilyCalls(json_tools.parse_tool_call)
    markup = Markup(None, ("<tool_call>", "</tool_call>"), family, ForcedCall(("<a>", "</a>")))
    arrived = pickle.loads(pickle.dumps(markup))  # noqa: S301 - our own
    assert arrived == markup
    (call,) = arrived.parse_calls(CALL, (WEATHER,))
    (forced,) = arrived.parse_forced(f"<a>{CALL}</a>", (WEATHER,))
    assert call.name == forced.name == "get_weather"
    assert call.arguments == forced.arguments == '{"city": "Oslo"}'
    assert arrived.parse_calls("no call", (WEATHER,)) == ()
