"""Engines over tiny models, loaded and closed by the tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from adapters.mlx.engine import MlxEngine
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.models import ModelCard, ModelId
from tests.plans import plan_for

Load = Callable[..., Awaitable[MlxEngine]]  # a folder and, as keywords, plan_for's options


@pytest_asyncio.fixture
async def load() -> AsyncIterator[Load]:
    """Loads a folder; every engine is closed at the end."""
    engines: list[MlxEngine] = []

    async def load_folder(folder: Path, **plan: int) -> MlxEngine:
        card = ModelCard(ModelId.parse(folder.name), "", folder, 400_000, 512, 0)
        engines.append(await MlxEngineLoader(MlxOptions()).load(card, plan_for(card, **plan)))
        return engines[-1]

    yield load_folder
    for engine in engines:
        await engine.close()
