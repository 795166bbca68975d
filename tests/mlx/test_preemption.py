"""A full KV reserve: who must leave the batch comes back, and says what it would have said."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adapters.mlx.worker import Worker
from application.choices import alternatives
from application.ports import EngineStats
from domain.chat import ChatCommand, JsonSchema, Message, Sampling, TextCommand
from domain.errors import ContextOverflow
from domain.models import ModelId
from domain.outputs import Echo, End, EngineOutput, Piece, PromptProgress
from tests.generations import outputs
from tests.mlx.conftest import Load

TINY = ModelId.parse("tiny")
LONG = "x" * 200  # with the answer to come, each takes half of it at first, and then more
NO_END = {256: -100.0, 257: -100.0, 258: -100.0}  # random weights like to stop
ONE = {"context_length": 1024, "concurrency": 1}  # the reserve of a single long request


def chat(text: str, **sampling: Any) -> ChatCommand:
    settings = {"temperature": 0, "max_tokens": 300, "logit_bias": NO_END} | sampling
    return ChatCommand(TINY, (Message.user(LONG + text),), Sampling(**settings))


def without_progress(said: list[EngineOutput]) -> list[EngineOutput]:
    return [output for output in said if not isinstance(output, PromptProgress)]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[EngineStats]:
    """What every engine's stats were, each time that they were taken."""
    taken: list[EngineStats] = []
    count = Worker._count

    def watch(worker: Worker, *args: Any) -> None:
        count(worker, *args)
        taken.append(worker._link.stats)

    monkeypatch.setattr(Worker, "_count", watch)
    return taken


async def test_long_requests_share_a_small_reserve_and_say_what_they_say_alone(
    load: Load, tiny_model: Path, counted: list[EngineStats]
) -> None:
    engine = await load(tiny_model, **ONE)
    commands = [chat(f"question {n}") for n in range(4)]
    alone = [await outputs(engine, command) for command in commands]
    assert engine.stats.preemptions == 0
    ended: list[int] = []

    async def answer(n: int) -> list[EngineOutput]:
        said = await outputs(engine, commands[n])
        ended.append(n)
        return said

    together = await asyncio.gather(*(answer(n) for n in range(4)))
    assert [without_progress(t) for t in together] == [without_progress(a) for a in alone]
    assert ended == sorted(ended)
    assert engine.stats.preemptions > 0
    assert engine.stats.widest_batch > 1
    assert max(stats.kv_bytes for stats in counted) <= 1024 * 1024
    assert max(stats.waiting for stats in counted) >= 2
    assert engine.stats.kv_bytes == engine.stats.waiting == engine.stats.running == 0


async def test_progress_is_never_said_twice(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model, **ONE)
    said = await asyncio.gather(*(outputs(engine, chat(f"q {n}" * 8)) for n in range(3)))
    assert engine.stats.preemptions > 0
    for one in said:
        processed = [o.processed for o in one if isinstance(o, PromptProgress)]
        assert processed == sorted(set(processed))
        assert processed[0] == 0
        assert isinstance(one[-1], End)


KINDS: dict[str, dict[str, Any]] = {
    "seed": {"temperature": 1.0, "seed": 5},
    "nucleus": {"temperature": 0.9, "seed": 6, "top_p": 0.8, "top_k": 40},
    "penalties": {"presence_penalty": 0.6, "frequency_penalty": 0.3, "repetition_penalty": 1.2},
    "scores": {"temperature": 1.0, "seed": 7, "top_logprobs": 2},
}


@pytest.mark.parametrize("kind", KINDS)
async def test_what_a_request_remembers_survives(load: Load, tiny_model: Path, kind: str) -> None:
    engine = await load(tiny_model, **ONE)
    commands = [chat(f"{n}", **KINDS[kind]) for n in range(3)]
    alone = [await outputs(engine, command) for command in commands]
    together = await asyncio.gather(*(outputs(engine, command) for command in commands))
    assert engine.stats.preemptions > 0
    for one, other in zip(alone, together, strict=True):
        assert [o.text for o in one if isinstance(o, Piece)] == [
            o.text for o in other if isinstance(o, Piece)
        ]
        scores = [
            [o.score.logprob for o in said if isinstance(o, Piece) and o.score]
            for said in (one, other)
        ]
        assert scores[0] == pytest.approx(scores[1], abs=1e-3)
        assert bool(scores[0]) == (kind == "scores")


async def test_a_grammar_goes_on_where_it_was(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model, **ONE)
    schema = JsonSchema(
        {
            "type": "object",
            "properties": {"text": {"type": "string", "pattern": "^[a-z]{330,340}$"}},
            "required": ["text"],
            "additionalProperties": False,
        }
    )
    options = {"temperature": 1.0, "max_tokens": 400, "logit_bias": {}}
    commands = [replace(chat(f"{n}", seed=n, **options), constraint=schema) for n in range(3)]
    alone = [without_progress(await outputs(engine, command)) for command in commands]
    together = await asyncio.gather(*(outputs(engine, command) for command in commands))
    assert engine.stats.preemptions > 0
    assert [without_progress(said) for said in together] == alone
    for said in alone:
        text = "".join(o.text for o in said if isinstance(o, Piece | End))
        assert set(json.loads(text)) == {"text"}


async def test_an_echo_is_not_repeated(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model, **ONE)
    sampling = Sampling(temperature=0, max_tokens=350, logit_bias=NO_END)
    commands = [TextCommand(TINY, LONG + f"once {n}", sampling, echo=True) for n in range(3)]
    together = await asyncio.gather(*(outputs(engine, command) for command in commands))
    assert engine.stats.preemptions > 0
    for said in together:
        assert sum(isinstance(output, Echo) for output in said) == 1
        assert sum(isinstance(output, Piece) for output in said) == 350


async def test_a_preempted_request_can_be_cancelled(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model, **ONE)
    first = asyncio.create_task(outputs(engine, chat("first", max_tokens=500)))
    second = engine.generate(chat("second", max_tokens=500))
    said = 0
    while not engine.stats.preemptions:
        await anext(second)
        said += 1
    await second.aclose()
    whole = await first
    assert sum(isinstance(output, Piece) for output in whole) == 500
    assert said > 10
    assert engine.stats.running == engine.stats.waiting == 0


async def test_choices_of_one_prompt_give_way_like_others(
    load: Load, tiny_model: Path, counted: list[EngineStats]
) -> None:
    engine = await load(tiny_model, **ONE)
    commands = alternatives(chat("a prompt", temperature=1.0, seed=3), 4)
    alone = [without_progress(await outputs(engine, c)) for c in commands]
    together = await asyncio.gather(*(outputs(engine, command) for command in commands))
    assert engine.stats.preemptions > 0
    assert [without_progress(said) for said in together] == alone
    assert max(stats.kv_bytes for stats in counted) <= 1024 * 1024


async def test_the_plan_is_the_limit_of_the_context(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model, context_length=64, concurrency=4)
    with pytest.raises(ContextOverflow) as caught:
        await outputs(engine, chat("x" * 100))
    assert caught.value.context_length == 64
    open_ended = Sampling(temperature=0, logit_bias=NO_END)
    said = await outputs(engine, ChatCommand(TINY, (Message.user("x"),), open_ended))
    assert said[-1] == End("length")
