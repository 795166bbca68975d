"""The models a client can ask for, and how far each is from answering."""

from application.model_pool import ModelPool
from application.ports import ModelCatalog
from domain.models import ListedModel, ModelCard, ModelId


class ListModels:
    """Every model of the catalog, sorted by id."""

    def __init__(self, catalog: ModelCatalog, models: ModelPool) -> None:
        self._catalog = catalog
        self._models = models

    async def __call__(self) -> tuple[ListedModel, ...]:
        cards = sorted(await self._catalog.all(), key=lambda card: card.id)
        return tuple(listed(card, self._models) for card in cards)


class GetModel:
    """One model of the catalog. Raises ModelNotFound."""

    def __init__(self, catalog: ModelCatalog, models: ModelPool) -> None:
        self._catalog = catalog
        self._models = models

    async def __call__(self, model: ModelId) -> ListedModel:
        return listed(await self._catalog.find(model), self._models)


def listed(card: ModelCard, models: ModelPool) -> ListedModel:
    """What the pool knows of a card's model. One in memory is described as it is there, though
    the catalog may have another revision by now.
    """
    resident = models.resident(card.id)
    shown = resident.card if resident else card
    newer = card.revision if card.revision != shown.revision else None
    return ListedModel(shown, models.state(card.id), models.context_length(shown), newer)
