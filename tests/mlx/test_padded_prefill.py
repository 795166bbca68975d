"""Prompts padded to few lengths, as on CUDA: the answers are the same."""

import asyncio
from pathlib import Path

import pytest

from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.chat import ChatCommand, Message, Sampling, Text
from domain.models import ModelCard, ModelId
from domain.outputs import Piece
from tests.plans import plan_for

TINY = ModelId.parse("test/tiny")
PROMPTS = [f"{n} " * (1 + 11 * n) for n in range(7)]  # of 30 to 170 tokens


def chat(text: str) -> ChatCommand:
    sampling = Sampling(max_tokens=12, temperature=0.0)
    return ChatCommand(TINY, (Message("user", (Text(text),)),), sampling)


async def answers(folder: Path, *, at_once: bool) -> list[str]:
    card = ModelCard(TINY, "", folder, 400_000, 512, 0)
    engine = await MlxEngineLoader(MlxOptions()).load(card, plan_for(card))

    async def answer(text: str) -> str:
        said = [output async for output in engine.generate(chat(text))]
        return "".join(output.text for output in said if isinstance(output, Piece))

    if at_once:
        texts = await asyncio.gather(*map(answer, PROMPTS))
        again = await asyncio.gather(*map(answer, PROMPTS))  # what was kept is right as well
        assert again == texts
    else:
        texts = [await answer(text) for text in PROMPTS]
    await engine.close()
    return texts


async def test_padding_changes_nothing(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = await answers(tiny_model, at_once=False)
    monkeypatch.setattr("adapters.mlx.gpu.prefill_width", lambda: 8)
    monkeypatch.setattr("adapters.mlx.gpu.prefill_multiple", lambda: 64)
    assert await answers(tiny_model, at_once=True) == expected
