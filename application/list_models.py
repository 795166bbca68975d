"""The models a client can ask for, and how far each is from answering."""

from application.model_pool import ModelPool
from application.ports import ModelCatalog
from domain.models import ListedModel, ModelId


class ListModels:
    """Every model of the catalog, sorted by id."""

    def __init__(self, catalog: ModelCatalog, models: ModelPool) -> None:
        self._catalog = catalog
        self._models = models

    async def __call__(self) -> tuple[ListedModel, ...]:
        cards = sorted(await self._catalog.all(), key=lambda card: card.id)
        return tuple(ListedModel(card, self._models.state(card.id)) for card in cards)


class GetModel:
    """One model of the catalog. Raises ModelNotFound."""

    def __init__(self, catalog: ModelCatalog, models: ModelPool) -> None:
        self._catalog = catalog
        self._models = models

    async def __call__(self, model: ModelId) -> ListedModel:
        card = await self._catalog.find(model)
        return ListedModel(card, self._models.state(card.id))
