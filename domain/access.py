"""What an API key opens, and for whom."""

from dataclasses import dataclass

from domain.errors import ModelNotFound
from domain.models import ModelId


@dataclass(frozen=True, slots=True)
class Access:
    """name: of the key; it may be logged, the key never. models: those that it may use; None is
    all. cache_scope: prompts are shared only within one.
    """

    name: str = ""
    models: frozenset[ModelId] | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cache_scope: str = ""

    def may_use(self, model: ModelId) -> bool:
        return self.models is None or model in self.models

    def require(self, model: ModelId) -> None:
        """Raises ModelNotFound: who may not use a model does not learn whether it exists."""
        if not self.may_use(model):
            raise ModelNotFound(str(model))
