"""The models a client can ask for."""

import pytest

from application.list_models import GetModel, ListModels
from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from domain.errors import ModelNotFound
from domain.models import ListedModel, ModelId, ModelState
from tests.fakes import FakeCatalog, FakeClock, StuckLoader, make_card
from tests.unit.clients import Client, settle

CARDS = {name: make_card(name) for name in ("c", "a", "b")}


async def test_models_are_listed_by_id_with_their_state() -> None:
    catalog, clock = FakeCatalog(*CARDS.values()), FakeClock()
    loader = StuckLoader(clock)
    pool = ModelPool(catalog, loader, clock, PoolLimits(10))
    hot, loading = (Client(pool, ModelId(name)) for name in "bc")
    await settle()
    loader.finish(hot.model)
    await settle()
    assert loading.waits
    assert await ListModels(catalog, pool)() == (
        ListedModel(CARDS["a"], ModelState.LOADABLE, 512),
        ListedModel(CARDS["b"], ModelState.HOT, 512),
        ListedModel(CARDS["c"], ModelState.LOADING, 512),
    )
    listed = await GetModel(catalog, pool)(hot.model)
    assert listed == ListedModel(CARDS["b"], ModelState.HOT, 512)


async def test_an_unknown_model_is_not_found() -> None:
    catalog, clock = FakeCatalog(), FakeClock()
    pool = ModelPool(catalog, StuckLoader(clock), clock, PoolLimits(10))
    assert await ListModels(catalog, pool)() == ()
    with pytest.raises(ModelNotFound):
        await GetModel(catalog, pool)(ModelId("nobody"))
