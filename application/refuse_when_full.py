"""Refuse what could only be refused, before any work is spent on it."""

from application.answer import Watch
from application.model_pool import ModelPool
from application.record import observed
from domain.models import ModelId


class RefuseWhenFull:
    """For a model in memory, as soon as a request has told its name. Whatever else would be wrong
    with the request, it would not be answered now.
    """

    def __init__(self, models: ModelPool, watch: Watch) -> None:
        self._models = models
        self._watch = watch

    @property
    def full(self) -> bool:
        """Whether anything would be refused; cheap to ask."""
        return self._models.full

    def __call__(self, model: ModelId) -> None:
        """Raises ServerBusy, as an answer of that model would. It counts as one that was."""
        refusal = self._models.refusal(model)
        if refusal:
            with observed(model, self._watch.clock, self._watch.observer):
                raise refusal
