"""What an operator does with models, beyond what the pool does by itself."""

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from application.list_models import listed
from application.model_pool import ModelPool
from application.pool_state import ResidentSnapshot
from application.ports import ModelCatalog, ModelSource
from application.pull_models import PullModels
from application.trace import wordless
from domain.errors import DomainError, EngineFailed, ModelBeingPulled, ModelInUse, ShuttingDown
from domain.models import FoundModel, ListedModel, ModelCard, ModelId, ModelState

logger = logging.getLogger("portico.models")


@dataclass(frozen=True, slots=True)
class ManagedModel:
    """A model of the catalog, and what it holds while it is loaded or loading."""

    listed: ListedModel
    pinned: bool
    idle_ttl: float | None  # seconds after which it leaves when idle
    idle: float | None  # seconds since its last use, loaded or not; None: never in this process
    resident: ResidentSnapshot | None


class DescribeModels:
    """Every model of the catalog, sorted by id, with all that is known of each."""

    def __init__(self, catalog: ModelCatalog, models: ModelPool) -> None:
        self._catalog = catalog
        self._models = models

    async def __call__(self) -> tuple[ManagedModel, ...]:
        cards = sorted(await self._catalog.all(), key=lambda card: card.id)
        return tuple(self._describe(card) for card in cards)

    async def one(self, model: ModelId) -> ManagedModel:
        """Raises ModelNotFound."""
        return self._describe(await self._catalog.find(model))

    def _describe(self, card: ModelCard) -> ManagedModel:
        return ManagedModel(
            listed(card, self._models),
            self._models.pinned(card.id),
            self._models.idle_ttl(card.id),
            self._models.idle(card.id),
            self._models.resident(card.id),
        )


class DeleteModel:
    """Take a model out of memory and off the disk; the bytes of disk that were freed.

    Raises ModelInUse, ModelBeingPulled, ModelNotFound, and InvalidRequest for models that are not
    ours to delete.
    """

    def __init__(self, catalog: ModelCatalog, models: ModelPool, pulls: PullModels) -> None:
        self._catalog = catalog
        self._models = models
        self._pulls = pulls

    async def __call__(self, model: ModelId) -> int:
        pull = self._pulls.running(model)
        if pull:  # its files would go from under it, and the rest of it be no model
            raise ModelBeingPulled(str(model), pull.id)
        resident = self._models.resident(model)
        if resident and (resident.leases or resident.state is ModelState.LOADING):
            loading = resident.state is ModelState.LOADING
            raise ModelInUse(str(model), resident.leases + resident.waiting, loading=loading)
        freed = await self._catalog.remove(model)
        self._pulls.deleted(model)
        # Not before: a model that may not be deleted stays in memory. A request that came
        # meanwhile is answered, and what it holds leaves like any other model. Should its engine
        # hang, the probes tell.
        with suppress(ModelInUse, EngineFailed):
            await self._models.unload(model)
        return freed


class PreloadModels:
    """Load models before anyone asks for them, one after the other.

    What fails is logged, and no reason not to load the others.
    """

    def __init__(self, models: ModelPool) -> None:
        self._models = models
        self.done = False  # each has had its turn

    async def __call__(self, wanted: Iterable[ModelId]) -> None:
        for model in wanted:
            try:
                await self._models.load(model)
            except ShuttingDown:
                return
            except DomainError as error:
                logger.warning("%s could not be loaded at start-up: %s", model, error)
            except Exception as error:
                problem = "%s could not be loaded at start-up"
                logger.error(problem, model, exc_info=wordless(error))
        self.done = True


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A model on the hub; here: it is on this machine already."""

    found: FoundModel
    here: bool


class SearchModels:
    """MLX models on the hub whose names match, the most downloaded first. Raises HubFailed."""

    def __init__(self, source: ModelSource, catalog: ModelCatalog) -> None:
        self._source = source
        self._catalog = catalog

    async def __call__(self, text: str, limit: int) -> tuple[SearchHit, ...]:
        hits = await self._source.search(text, limit)
        cached = (await self._catalog.disk_use()).models
        here = {card.id for card in await self._catalog.all()}
        here |= {model.id for model in cached if model.whole}
        return tuple(SearchHit(found, found.id in here) for found in hits)
