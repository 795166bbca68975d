"""Faults of a request stay with it; a fault of the step is everyone's, and typed."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.generate import generate_step
from mlx_lm.utils import load as load_with_mlx_lm

from adapters.container import Container
from adapters.mlx import prompt
from adapters.mlx.decode import DecodeBatch
from adapters.settings import Settings
from application.choices import alternatives
from domain.chat import ChatCommand, Message, Regex, Sampling, TextCommand
from domain.errors import EngineFailed, InvalidRequest
from domain.events import assemble
from domain.models import ModelId
from domain.outputs import Echo, End, Piece
from tests.mlx.conftest import Load
from tests.waiting import eventually

TINY = ModelId.parse("tiny")


def chat(text: str = "hello", **sampling: Any) -> ChatCommand:
    settings = {"temperature": 0, "max_tokens": 20} | sampling
    return ChatCommand(TINY, (Message.user(text),), Sampling(**settings))


async def test_the_buffer_cache_is_limited_as_configured(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[int] = []
    monkeypatch.setattr(mx, "set_cache_limit", limits.append)
    container = Container(
        settings=Settings(available_models=(str(tiny_model),), max_cache_size_gb=0.5)
    )
    async with container.models().lease(TINY):
        assert limits == [500_000_000]
    await container.models().close()


async def test_a_bias_outside_the_vocabulary_is_refused(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    with pytest.raises(InvalidRequest, match="259 tokens"):
        async for _ in engine.generate(chat(logit_bias={259: 1.0})):
            pass
    biased = [o async for o in engine.generate(chat(logit_bias={65: 100.0}, max_tokens=5))]
    assert len({o.text for o in biased if isinstance(o, Piece)}) == 1


async def test_a_seed_says_the_same_alone_and_amid_other_traffic(
    load: Load, tiny_model: Path
) -> None:
    engine = await load(tiny_model)

    async def text(command: ChatCommand) -> str:
        outputs = [output async for output in engine.generate(command)]
        return "".join(o.text for o in outputs if isinstance(o, Piece))

    seeded = chat(temperature=1.0, seed=11)
    alone = await text(seeded)
    traffic = [chat(f"other {n}", temperature=0.5 + n / 10, seed=n, top_p=0.9) for n in range(5)]
    amid, *others = await asyncio.gather(text(seeded), *(text(c) for c in traffic))
    assert amid == alone
    assert len(set(others)) > 1


async def test_a_prompt_that_is_scored_stops_no_stream(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    order: list[str] = []

    async def listen(name: str, command: ChatCommand | TextCommand) -> Any:
        async for output in engine.generate(command):
            order.append(f"{name} {type(output).__name__}")

    stream = asyncio.create_task(listen("stream", chat(max_tokens=300)))
    await eventually(lambda: "stream Piece" in order)
    scored = TextCommand(TINY, "x" * 200, Sampling(max_tokens=1, top_logprobs=1), echo=True)
    await listen("scored", scored)
    between = order[order.index("scored PromptProgress") : order.index("scored Echo")]
    assert between.count("stream Piece") > 3
    stream.cancel()


async def test_who_leaves_amid_the_scores_of_a_prompt_leaves_nothing(
    load: Load, tiny_model: Path
) -> None:
    engine = await load(tiny_model)
    scored = TextCommand(TINY, "x" * 400, Sampling(max_tokens=1, top_logprobs=1), echo=True)
    answer = engine.generate(scored)
    await anext(answer)
    await answer.aclose()
    await eventually(lambda: (engine.stats.running, engine.stats.waiting) == (0, 0))
    assert [o async for o in engine.generate(replace(scored, echo=False))]


async def test_requests_of_every_kind_share_the_batch(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.7, "seed": 1},
        {"temperature": 1.0, "top_p": 0.5, "seed": 2},
        {"temperature": 1.0, "top_k": 5, "min_p": 0.1, "seed": 3},
        {"presence_penalty": 1.0, "frequency_penalty": 0.5},
        {"repetition_penalty": 1.3},
        {"logit_bias": {65: 5.0}},
        {"top_logprobs": 4},
    ]
    grammar = Regex("[0-9a-f]{19}")

    async def text(options: dict[str, Any]) -> str:
        command = chat(**options)
        if "logit_bias" in options:
            command = replace(command, constraint=grammar)
        outputs = [o async for o in engine.generate(command)]
        return "".join(o.text for o in outputs if isinstance(o, Piece))

    alone = [await text(options) for options in kinds]
    steps = engine.stats.steps
    together = await asyncio.gather(*(text(options) for options in kinds))
    assert together == alone
    assert engine.stats.widest_batch == len(kinds)
    assert engine.stats.steps - steps < 20 * len(kinds) / 2


async def test_greedy_answers_are_those_of_mlx_lm(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    command = chat(max_tokens=30, top_logprobs=0)
    ours = [o async for o in engine.generate(command)]
    raw = b"".join(o.score.raw for o in ours if isinstance(o, Piece) and o.score)

    model, tokenizer = load_with_mlx_lm(str(tiny_model))[:2]
    tokens = mx.array(prompt.read(tokenizer, command).tokens)
    theirs = [int(token) for token, _ in generate_step(tokens, model, max_tokens=30)]
    assert len(theirs) == 30
    assert raw.decode("utf-8", "replace") == tokenizer.decode(theirs)


async def test_a_fault_of_the_step_fails_all_in_flight_and_the_pool_loads_again(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    container = Container(settings=Settings(available_models=(str(tiny_model),)))
    complete = container.complete_chat()

    async def answer(text: str) -> str:
        return assemble([event async for event in complete(chat(text, max_tokens=50))]).text

    expected = await answer("again")
    steps = 0
    step = DecodeBatch.step

    def breaks(batch: DecodeBatch) -> Any:
        nonlocal steps
        steps += 1
        if steps > 10:
            raise RuntimeError("the device is on fire")
        return step(batch)

    with monkeypatch.context() as patched:
        patched.setattr(DecodeBatch, "step", breaks)
        failures = await asyncio.gather(
            *(answer(f"q{n}") for n in range(8)), return_exceptions=True
        )
    assert all(isinstance(failure, EngineFailed) for failure in failures)
    assert "RuntimeError" in str(failures[0])
    assert "on fire" not in str(failures[0])  # it may be another caller's prompt
    assert await answer("again") == expected
    assert container.models().snapshot().leases == 0
    await container.models().close()


async def test_siblings_prefill_their_prompt_once(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    command = chat("a prompt of some length", temperature=1.0, seed=3)

    async def text(command: ChatCommand) -> str:
        outputs = [o async for o in engine.generate(command)]
        return "".join(o.text for o in outputs if isinstance(o, Piece))

    seeded = [replace(command, sampling=replace(command.sampling, seed=3 + n)) for n in range(4)]
    alone = [await text(one) for one in seeded]
    fresh = replace(command, cache_scope="another")
    before = engine.stats.prefilled_tokens
    together = await asyncio.gather(*(text(one) for one in alternatives(fresh, 4)))
    assert together == alone
    assert engine.stats.prefilled_tokens - before == before  # that of the four, who shared it too


@pytest.mark.parametrize("leaver", [0, 1, 3])
async def test_a_sibling_that_leaves_takes_nobody_with_it(
    load: Load, tiny_model: Path, leaver: int
) -> None:
    engine = await load(tiny_model)
    commands = alternatives(chat("a prompt " * 30), 4)
    generations = [engine.generate(command) for command in commands]

    async def read(n: int) -> int:
        if n == leaver:
            await anext(generations[n])
            await generations[n].aclose()
            return 0
        return len([output async for output in generations[n]])

    counts = await asyncio.gather(*(read(n) for n in range(4)))
    assert all(count > 20 for n, count in enumerate(counts) if n != leaver)
    await eventually(lambda: not engine.stats.running)


async def test_echoed_scores_are_those_of_mlx_lm(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    sampling = Sampling(max_tokens=0, top_logprobs=1)
    command = TextCommand(TINY, "some words", sampling, echo=True)
    said = [output async for output in engine.generate(command)]
    (echo,) = (output for output in said if isinstance(output, Echo))
    assert echo.text == "some words"
    assert said[-1] == End("length")

    model, tokenizer = load_with_mlx_lm(str(tiny_model))[:2]
    tokens = tokenizer.encode("some words")
    logits = model(mx.array([tokens]))[0]
    logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    expected = [float(logprobs[n, token].item()) for n, token in enumerate(tokens[1:])]
    assert echo.scores[0].logprob is None
    assert [score.logprob for score in echo.scores[1:]] == pytest.approx(expected, abs=1e-4)


async def test_a_suffix_needs_a_model_that_can_fill_in(load: Load, tiny_model: Path) -> None:
    engine = await load(tiny_model)
    with pytest.raises(InvalidRequest) as caught:
        await anext(engine.generate(TextCommand(TINY, "a", suffix="b")))
    assert caught.value.param == "suffix"
