"""A fault injected into each part that works for one request: that request fails, and its
neighbours go on to the byte.
"""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from adapters.container import Container
from adapters.mlx import prompt, request, sampling
from adapters.mlx.decode import DecodeBatch
from adapters.mlx.fingerprint import PrefixStore
from adapters.mlx.grammar import Constraint
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.prefill import Prefills
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from adapters.settings import Settings
from domain.chat import ChatCommand, Message, Regex, Sampling, TextCommand
from domain.errors import DomainError, EngineFailed, InvalidRequest
from domain.events import assemble
from domain.models import ModelCard, ModelId
from tests.generations import outputs
from tests.mlx.conftest import Load
from tests.plans import plan_for
from tests.waiting import eventually

TINY = ModelId.parse("tiny")


class Panic(BaseException):
    """As a library in Rust panics: no Exception."""


FIRE = Panic("this part is on fire")
HEX = Regex("[0-9a-f]{200}")
NEIGHBOURS = 4

Patch = Callable[[pytest.MonkeyPatch], None]


def chat(text: str, constraint: Regex | None = None, **options: Any) -> ChatCommand:
    settings = {"temperature": 0.8, "seed": 3, "max_tokens": 60} | options
    return ChatCommand(TINY, (Message.user(text),), Sampling(**settings), constraint=constraint)


def burn(*args: Any, **options: Any) -> Any:
    raise FIRE


def nth_call_burns(function: Callable[..., Any], n: int) -> Callable[..., Any]:
    calls = 0

    def counting(*args: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        return function(*args, **options) if calls < n else burn()

    return counting


def template(patch: pytest.MonkeyPatch) -> None:
    read = prompt.read

    def picky(tokenizer: Any, command: Any, **options: Any) -> Any:
        return burn() if command == VICTIMS["template"] else read(tokenizer, command, **options)

    patch.setattr(prompt, "read", picky)


def sampler(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sampling, "_make_bias", lambda *_: mx.zeros((7,)))


def grammar_mask(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Constraint, "mask", nth_call_burns(Constraint.mask, 12))


def grammar_token(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Constraint, "take", nth_call_burns(Constraint.take, 9))


def scores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(request, "score", nth_call_burns(request.score, 5))


def prompt_scores(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(request, "prompt_scores", burn)


def detokenizer(patch: pytest.MonkeyPatch) -> None:
    outputs = Request.outputs

    def picky(self: Request, *args: Any) -> Any:
        if self.submit.command is VICTIMS["detokenizer"] and len(self.generated) == 10:
            self.detokenizer.add = burn  # type: ignore[method-assign]
        return outputs(self, *args)

    patch.setattr(Request, "outputs", picky)


def prefill(patch: pytest.MonkeyPatch) -> None:
    forward = Prefills._forward

    def picky(self: Prefills, tokens: list[int], *args: Any) -> None:
        if b"X" in map(self._model.vocabulary.bytes_of, tokens):
            burn()
        forward(self, tokens, *args)

    patch.setattr(Prefills, "_forward", picky)


VICTIMS: dict[str, ChatCommand | TextCommand] = {
    "template": chat("the victim"),
    "sampler": chat("the victim", logit_bias={65: 1.0}),
    "grammar_mask": chat("the victim", HEX),
    "grammar_token": chat("the victim", HEX),
    "scores": chat("the victim", top_logprobs=2),
    "prompt_scores": TextCommand(TINY, "the victim", Sampling(top_logprobs=1), echo=True),
    "detokenizer": chat("the victim"),
    "prefill": chat("the victim X"),
}
FAULTS: dict[str, Patch] = {
    fault.__name__: fault
    for fault in (
        template,
        sampler,
        grammar_mask,
        grammar_token,
        scores,
        prompt_scores,
        detokenizer,
        prefill,
    )
}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_fault_of_one_request_is_that_request_s(
    load: Load, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    engine = await load(tiny_model)
    commands = [chat(f"neighbour {n}") for n in range(NEIGHBOURS)]
    alone = [await outputs(engine, command) for command in commands]
    with monkeypatch.context() as patch:
        FAULTS[name](patch)
        fresh = [chat(f"neighbour {n}") for n in range(NEIGHBOURS)]
        victim, *neighbours = await asyncio.gather(
            *(outputs(engine, command) for command in [VICTIMS[name], *fresh]),
            return_exceptions=True,
        )
    assert isinstance(victim, DomainError)
    assert isinstance(victim, InvalidRequest if name in ("template", "sampler") else EngineFailed)
    assert [text(said) for said in neighbours] == [text(said) for said in alone]
    assert engine.alive
    assert (engine.stats.running, engine.stats.waiting) == (0, 0)
    again = await outputs(engine, VICTIMS[name])
    assert len(again) > 2


def text(said: Any) -> str:
    assert isinstance(said, list), said
    return "".join(getattr(output, "text", "") for output in said)


async def test_a_group_that_can_t_be_prefilled_together_goes_one_by_one(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("adapters.mlx.gpu.prefill_width", lambda: 8)
    card = ModelCard(TINY, "", tiny_model, 400_000, 512, 0)
    engine = await MlxEngineLoader(MlxOptions(prefix_cache=False)).load(card, plan_for(card))
    commands = [chat(f"{n} one of many") for n in range(4)]
    alone = [text(await outputs(engine, command)) for command in commands]
    monkeypatch.setattr(Prefills, "_forward_padded", burn)
    together = await asyncio.gather(*(outputs(engine, command) for command in commands))
    assert [text(said) for said in together] == alone
    await engine.close()


@pytest.mark.parametrize("method", ["find", "keep"])
async def test_a_broken_prefix_cache_costs_nothing_but_time(
    load: Load, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    engine = await load(tiny_model)
    expected = text(await outputs(engine, chat("hello")))
    monkeypatch.setattr(PrefixCache, method, burn)
    assert text(await outputs(engine, chat("hello"))) == expected
    assert engine.alive


async def test_a_fault_before_the_first_step_is_told_too(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrefixStore, "__init__", burn)
    card = ModelCard(TINY, "", tiny_model, 400_000, 512, 0)
    options = MlxOptions(prefix_dir=tmp_path / "kept", prefix_disk_bytes=10**6)
    engine = await MlxEngineLoader(options).load(card, plan_for(card))
    with pytest.raises(EngineFailed, match="Panic"):
        await asyncio.wait_for(outputs(engine, chat("hello")), 20)
    await asyncio.wait_for(engine.close(), 20)
    assert not engine.alive


async def test_an_engine_that_can_t_be_closed_in_good_order_is_gone_all_the_same(
    load: Load, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = await load(tiny_model)
    with monkeypatch.context() as patch:
        patch.setattr(PrefixCache, "close", burn)
        await asyncio.wait_for(engine.close(), 20)


async def test_one_engine_closed_amid_the_answers_of_another_changes_none(
    load: Load, tiny_model: Path
) -> None:
    staying, leaving = await load(tiny_model), await load(tiny_model)
    command = chat("stay", max_tokens=200)
    expected = text(await outputs(staying, command))
    generation = leaving.generate(chat("leave", max_tokens=400))
    answering = asyncio.create_task(outputs(staying, chat("stay", max_tokens=200)))
    for _ in range(10):
        await anext(generation)
    await leaving.close()
    await generation.aclose()
    assert text(await answering) == expected


@pytest.mark.parametrize("where", [(DecodeBatch, "step"), (prompt, "read")])
async def test_work_that_hangs_fails_its_requests_and_another_engine_takes_over(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[Any, str]
) -> None:
    settings = Settings(available_models=(str(tiny_model),), hang_timeout=1.0)
    container = Container(settings=settings)
    complete, pool = container.complete_chat(), container.models()

    async def answer(said: str) -> str:
        return assemble([event async for event in complete(chat(said))]).text

    expected = await answer("again")
    work, stuck, may_go_on = getattr(*where), threading.Event(), threading.Event()

    def hangs(*args: Any, **named: Any) -> Any:
        stuck.set()
        may_go_on.wait()
        return work(*args, **named)

    with monkeypatch.context() as patched:
        patched.setattr(*where, hangs)
        questions = [asyncio.create_task(answer(f"q{n}")) for n in range(4)]
        assert await asyncio.to_thread(stuck.wait, 20)
        failures = await asyncio.wait_for(asyncio.gather(*questions, return_exceptions=True), 20)
    assert all(isinstance(failure, EngineFailed) and "hung" in str(failure) for failure in failures)
    assert await answer("again") == expected  # a fresh engine's
    snapshot = pool.snapshot()
    assert (snapshot.hung, snapshot.leases) == ((TINY,), 0)
    assert snapshot.memory_used > snapshot.residents[0].need  # the hung one holds its own

    may_go_on.set()
    await eventually(lambda: not pool.snapshot().hung)
    assert pool.snapshot().memory_used == snapshot.residents[0].need
    await pool.close()
