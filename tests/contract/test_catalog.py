"""What every ModelCatalog promises: one suite for the Hugging Face cache and for the fake of it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from adapters.huggingface.catalog import HuggingFaceCatalog
from application.ports import ModelCatalog
from domain.errors import InvalidRequest, ModelNotFound
from domain.models import ModelId
from tests.fakes import FakeCatalog, make_card
from tests.servers import cached_model, model_folder

PULLED, MADE, BUILT_IN = (ModelId.parse(name) for name in ("org/pulled", "made", "built-in"))
LATER = ModelId.parse("later")

Add = Callable[[ModelId], object]


@pytest.fixture(params=["huggingface", "fake"])
def stocked(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ModelCatalog, Add]:
    """A catalog with these three, and how another model gets there."""
    if request.param == "fake":
        cards = [make_card(str(model)) for model in (PULLED, MADE, BUILT_IN)]
        fake = FakeCatalog(*cards, elsewhere=[str(BUILT_IN)])
        return fake, lambda model: fake.put(make_card(str(model)))
    cache, own = tmp_path / "hub", tmp_path / "own"
    cached_model(cache, str(PULLED))
    model_folder(own, str(MADE))
    built_in = {str(BUILT_IN): model_folder(tmp_path, "elsewhere")}
    offered = (str(PULLED), str(BUILT_IN))
    catalog = HuggingFaceCatalog(offered, built_in, cache, own)
    return catalog, lambda model: model_folder(own, str(model))


@pytest.fixture
def catalog(stocked: tuple[ModelCatalog, Add]) -> ModelCatalog:
    return stocked[0]


async def test_every_model_is_listed_once_and_found(catalog: ModelCatalog) -> None:
    cards = await catalog.all()
    assert sorted(card.id for card in cards) == sorted([PULLED, MADE, BUILT_IN])
    assert [await catalog.find(card.id) for card in cards] == list(cards)


async def test_a_model_that_is_not_there_is_not_found(catalog: ModelCatalog) -> None:
    with pytest.raises(ModelNotFound):
        await catalog.find(LATER)
    with pytest.raises(ModelNotFound):
        await catalog.remove(LATER)


@pytest.mark.parametrize("model", [PULLED, MADE])
async def test_what_was_removed_is_gone(catalog: ModelCatalog, model: ModelId) -> None:
    assert await catalog.remove(model) > 0
    assert model not in {card.id for card in await catalog.all()}
    assert model not in {cached.id for cached in (await catalog.disk_use()).models}
    with pytest.raises(ModelNotFound):
        await catalog.find(model)
    with pytest.raises(ModelNotFound):
        await catalog.remove(model)


async def test_what_is_not_ours_to_delete_stays(catalog: ModelCatalog) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        await catalog.remove(BUILT_IN)
    assert refusal.value.param == "model"
    assert (await catalog.find(BUILT_IN)).id == BUILT_IN


async def test_the_disk_is_used_by_downloads(catalog: ModelCatalog) -> None:
    use = await catalog.disk_use()
    (pulled,) = [cached for cached in use.models if cached.id == PULLED]
    assert pulled.whole
    assert pulled.bytes_on_disk > 0
    assert BUILT_IN not in {cached.id for cached in use.models}
    assert use.free > 0


async def test_a_change_that_was_announced_is_seen(stocked: tuple[ModelCatalog, Add]) -> None:
    catalog, add = stocked
    await catalog.all()
    add(LATER)
    catalog.invalidate()
    assert (await catalog.find(LATER)).id == LATER
    assert LATER in {card.id for card in await catalog.all()}
