"""Models whose engines died, and how long they rest before they are loaded again."""

from application.pool_state import FailingModel
from application.ports import Clock
from domain.backoff import Deaths, after_death
from domain.errors import DomainError, EngineFailed, EngineResting, ModelUnusable
from domain.models import ModelId


class Failures:
    """Deaths in a row, by model; a success forgets them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._deaths: dict[ModelId, Deaths] = {}

    def died(self, model: ModelId, lived: float, reason: str) -> None:
        """lived: seconds from its load to its death."""
        before = self._deaths.get(model)
        self._deaths[model] = after_death(before, self._clock(), lived, reason)

    def load_failed(self, model: ModelId, failure: DomainError) -> None:
        """A model that can't be loaded as it is says so at once, however often it is asked for."""
        if isinstance(failure, EngineFailed) and not isinstance(failure, ModelUnusable):
            self.died(model, 0.0, str(failure))

    def forget(self, model: ModelId) -> None:
        self._deaths.pop(model, None)

    def check(self, model: ModelId) -> None:
        """Raises EngineResting while the model is not to be loaded."""
        deaths = self._deaths.get(model)
        left = deaths.rest_left(self._clock()) if deaths else 0.0
        if deaths and left > 0:
            raise EngineResting(str(model), deaths.count, left, deaths.reason)

    @property
    def models(self) -> tuple[FailingModel, ...]:
        now = self._clock()
        return tuple(
            FailingModel(model, deaths.count, deaths.rest_left(now), deaths.reason)
            for model, deaths in self._deaths.items()
        )
