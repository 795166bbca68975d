"""Answers with guesses from the text itself are those without, whether these are right or wrong."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from adapters.mlx.engine import MlxEngine
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.chat import ChatCommand, JsonSchema, Message, Sampling
from domain.models import ModelCard, ModelId
from domain.outputs import End, EngineOutput, Piece, PromptProgress
from domain.prompt_lookup import PromptLookup
from domain.speculation import Payoff
from tests.generations import outputs
from tests.mlx.architectures import BY_NAME
from tests.plans import plan_for
from tests.tiny import QWEN3, make_model

TINY = ModelId.parse("tiny")
# Of three letters, and without an end: what follows three of them is soon said again.
REPEATS = dict.fromkeys((64, 65, 66), 90.0) | dict.fromkeys((256, 257, 258), -100.0)
MOST = 8

LoadBoth = Callable[..., Awaitable[tuple[MlxEngine, MlxEngine]]]  # without lookups, and with them


@pytest_asyncio.fixture
async def load(tmp_path: Path) -> AsyncIterator[LoadBoth]:
    engines: list[MlxEngine] = []

    async def load_both(
        config: dict[str, Any] = QWEN3, kv_bits: int | None = None, **plan: int
    ) -> tuple[MlxEngine, MlxEngine]:
        folder = make_model(tmp_path / "tiny", config)
        card = ModelCard(TINY, "", folder, 400_000, 512, 0)
        planned = replace(plan_for(card, **plan), kv_bits=kv_bits)
        for most in (0, MOST):
            options = MlxOptions(prompt_lookup_tokens=most)
            engines.append(await MlxEngineLoader(options).load(card, planned))
        return engines[-2], engines[-1]

    yield load_both
    for engine in engines:
        await engine.close()


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guess whether it pays or not."""
    monkeypatch.setattr(Payoff, "pays", lambda *_: True)


def chat(text: str, **sampling: Any) -> ChatCommand:
    settings = {"temperature": 0, "max_tokens": 60, "logit_bias": REPEATS} | sampling
    return ChatCommand(TINY, (Message.user(text),), Sampling(**settings))


COMMANDS = [
    chat("greedy"),
    chat("greedy, and ends where it likes", max_tokens=200, logit_bias={}),
    chat("seeded", temperature=0.4, seed=3),
    chat("seeded, and ends where it likes", temperature=1.0, seed=8, logit_bias={}),
    chat("nucleus", temperature=0.8, seed=9, top_p=0.9, top_k=40, min_p=0.01),
    chat("scores", temperature=0.3, seed=4, top_logprobs=2),
    chat("one two three four, one two three four, one two three " * 4),
    *(chat("short", max_tokens=length) for length in range(1, 8)),
]


def texts(said: list[EngineOutput]) -> list[str]:
    return [output.text for output in said if isinstance(output, Piece | End)]


def scores(said: list[EngineOutput]) -> list[float]:
    return [output.score.logprob for output in said if isinstance(output, Piece) and output.score]


async def test_answers_are_those_without(load: LoadBoth, always: None) -> None:
    plain, guessing = await load()
    for command in COMMANDS:
        expected, said = await outputs(plain, command), await outputs(guessing, command)
        assert texts(said) == texts(expected)
        assert said[-1] == expected[-1]
        assert scores(said) == pytest.approx(scores(expected), abs=1e-3)
    stats = guessing.stats
    assert stats.generated_tokens == plain.stats.generated_tokens
    assert stats.accepted_tokens > 50
    assert stats.steps < plain.stats.steps
    assert plain.stats.drafted_tokens == 0


async def test_wrong_guesses_change_nothing(
    load: LoadBoth, always: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptLookup, "count", property(lambda _: 3))
    monkeypatch.setattr(PromptLookup, "guess", lambda _, count: [7] * count)
    plain, guessing = await load()
    for command in COMMANDS:
        assert texts(await outputs(guessing, command)) == texts(await outputs(plain, command))
    assert guessing.stats.drafted_tokens > 500
    assert guessing.stats.accepted_tokens < 0.1 * guessing.stats.drafted_tokens


async def test_a_few_rows_guess_together(load: LoadBoth, always: None) -> None:
    plain, guessing = await load()
    kinds: list[dict[str, Any]] = [
        {"max_tokens": 90},
        {"temperature": 0.2, "seed": 3, "max_tokens": 85},
        {"temperature": 0.1, "seed": 4, "top_p": 0.5, "top_logprobs": 1, "max_tokens": 91},
        {"max_tokens": 80},
    ]
    commands = [chat("x" * 9 * n + str(n), **kind) for n, kind in enumerate(kinds)]
    for width in (2, 4):
        expected = [texts(await outputs(plain, command)) for command in commands[:width]]
        said = await asyncio.gather(*(outputs(guessing, command) for command in commands[:width]))
        assert [texts(one) for one in said] == expected
    assert guessing.stats.accepted_tokens > 0
    assert guessing.stats.widest_batch == 4
    # What each left behind is right: the next turns begin with it, and say the same.
    for n, command in enumerate(commands):
        answer = Message.assistant("".join(texts(await outputs(plain, command))))
        second = replace(command, messages=(*command.messages, answer, Message.user("and?")))
        again = [await outputs(engine, second) for engine in (plain, guessing)]
        assert texts(again[0]) == texts(again[1]), n
        assert max(o.cached for o in again[1] if isinstance(o, PromptProgress)) > 32


async def test_more_rows_take_ordinary_steps(load: LoadBoth, always: None) -> None:
    plain, guessing = await load()
    commands = [chat("x" * 9 + str(n), max_tokens=40) for n in range(6)]
    expected = [texts(await outputs(plain, command)) for command in commands]
    said = await asyncio.gather(*(outputs(guessing, command) for command in commands))
    assert [texts(one) for one in said] == expected
    assert guessing.stats.drafted_tokens == 0


async def test_requests_give_way_to_each_other_amid_guesses(load: LoadBoth, always: None) -> None:
    commands = [chat("x" * 200 + str(n), max_tokens=300) for n in range(3)]
    plain, guessing = await load(context_length=1024, concurrency=1)
    expected = [texts(await outputs(plain, command)) for command in commands]
    said = await asyncio.gather(*(outputs(guessing, command) for command in commands))
    assert [texts(one) for one in said] == expected
    assert guessing.stats.preemptions > 0
    assert guessing.stats.accepted_tokens > 0


async def test_penalties_and_grammars_take_ordinary_steps(load: LoadBoth, always: None) -> None:
    _, guessing = await load()
    schema = JsonSchema({"type": "object", "properties": {"x": {"type": "integer"}}})
    penalised = chat("penalties", presence_penalty=1.0)
    for command in (penalised, replace(chat("a grammar", logit_bias={}), constraint=schema)):
        assert isinstance((await outputs(guessing, command))[-1], End)
    assert guessing.stats.drafted_tokens == 0


@pytest.mark.parametrize("kind", ["list of plain", "list with an indexer", "quantised"])
async def test_every_cache_that_can_be_cut_back(load: LoadBoth, always: None, kind: str) -> None:
    bits = 8 if kind == "quantised" else None
    plain, guessing = await load(BY_NAME.get(kind, QWEN3), kv_bits=bits)
    commands = [COMMANDS[0], COMMANDS[6]]
    expected = [texts(await outputs(plain, command)) for command in commands]
    alone = [texts(await outputs(guessing, command)) for command in commands]
    together = await asyncio.gather(*(outputs(guessing, command) for command in commands))
    assert alone == [texts(said) for said in together] == expected
    assert guessing.stats.drafted_tokens > 0


@pytest.mark.parametrize("kind", ["rotating", "recurrent"])
async def test_other_caches_take_ordinary_steps(load: LoadBoth, always: None, kind: str) -> None:
    plain, guessing = await load(BY_NAME[kind])
    for command in (COMMANDS[0], COMMANDS[2]):
        assert texts(await outputs(guessing, command)) == texts(await outputs(plain, command))
    assert guessing.stats.drafted_tokens == 0


async def test_guesses_that_do_not_pay_are_left_alone(
    load: LoadBoth, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PromptLookup, "count", property(lambda _: MOST))
    monkeypatch.setattr(PromptLookup, "guess", lambda _, count: [7] * count)
    _, guessing = await load()
    await outputs(guessing, chat("long", max_tokens=450))
    # Trials of 8 steps at most, after rests of 64 and 256.
    assert 0 < guessing.stats.drafted_tokens <= 3 * 8 * MOST


async def test_every_text_is_tried_anew(load: LoadBoth, monkeypatch: pytest.MonkeyPatch) -> None:
    _, guessing = await load()
    with monkeypatch.context() as wrong:
        wrong.setattr(PromptLookup, "count", property(lambda _: MOST))
        wrong.setattr(PromptLookup, "guess", lambda _, count: [7] * count)
        await outputs(guessing, chat("wrong", max_tokens=60))
        before = guessing.stats.drafted_tokens
        await outputs(guessing, chat("wrong again", max_tokens=60))
    assert guessing.stats.drafted_tokens > before > 0
