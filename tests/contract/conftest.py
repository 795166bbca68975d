"""One engine of each kind, behind the same fixture."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from adapters.isolated.loader import IsolatingLoader
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from adapters.scripted.engine import Script, ScriptedLoader
from application.ports import Engine, EngineLoader
from domain.models import ModelCard, ModelId
from tests.plans import plan_for

CONTEXT = 512
WORDS = " ".join(f"word{n}" for n in range(CONTEXT))  # the scripted engine has to stop it too


@pytest.fixture(params=["scripted", "scripted in a process", "mlx"])
def loader(request: pytest.FixtureRequest) -> EngineLoader:
    if request.param == "mlx":
        return MlxEngineLoader(MlxOptions())
    make = partial(ScriptedLoader, Script(reply=WORDS, token_delay=0.001))
    if request.param == "scripted":
        return make()
    return IsolatingLoader(make(), make, lambda model: True)


@pytest_asyncio.fixture
async def engine(loader: EngineLoader, tiny_model: Path) -> AsyncIterator[Engine]:
    card = ModelCard(ModelId.parse("tiny"), "", tiny_model, 400_000, CONTEXT, 0)
    engine = await loader.load(card, plan_for(card))
    yield engine
    await engine.close()
