"""Threads outlive their models: loading over and over leaves none behind."""

from pathlib import Path

import psutil

from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.chat import ChatCommand, Message, Sampling, Text
from domain.models import ModelCard, ModelId
from tests.plans import plan_for

TINY = ModelId.parse("test/tiny")


async def test_loads_take_the_threads_of_models_that_left(tiny_model: Path) -> None:
    card = ModelCard(TINY, "", tiny_model, 400_000, 512, 0)
    loader = MlxEngineLoader(MlxOptions())
    command = ChatCommand(TINY, (Message("user", (Text("hello"),)),), Sampling(max_tokens=4))
    threads = []
    for _ in range(6):
        engine = await loader.load(card, plan_for(card))
        assert [output async for output in engine.generate(command)]
        threads.append(psutil.Process().num_threads())
        await engine.close()
    # Others in this process come and go by one or two; of these there would be eight.
    assert threads[-1] - threads[1] < 6
