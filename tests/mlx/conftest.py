"""Engines over tiny models, loaded and closed by the tests."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest_asyncio

from adapters.mlx.engine import MlxEngine
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.models import ModelCard, ModelId

Load = Callable[[Path], Awaitable[MlxEngine]]


@pytest_asyncio.fixture
async def load() -> AsyncIterator[Load]:
    """Loads a folder; every engine is closed at the end."""
    engines: list[MlxEngine] = []

    async def load_folder(folder: Path) -> MlxEngine:
        card = ModelCard(ModelId.parse(folder.name), "", folder, 400_000, 512, 0)
        engines.append(await MlxEngineLoader(MlxOptions()).load(card))
        return engines[-1]

    yield load_folder
    for engine in engines:
        await engine.close()
