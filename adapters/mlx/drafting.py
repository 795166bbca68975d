"""Models that are loaded together with a draft model. No mlx here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from application.ports import Engine, EngineLoader, ModelCatalog
from domain.errors import ModelNotFound, ModelUnusable
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard, ModelId
from domain.speculation import Draft


@dataclass(frozen=True, slots=True)
class DraftChoice:
    """The draft that is set for a model. tokens: guesses of one step."""

    model: ModelId
    tokens: int


class DraftingLoader:
    """Sizes and loads a model with its draft, as far as one is set; `inner` does the work.

    drafts: by the model that they are for. catalogs: where they are looked for, in this order.
    """

    def __init__(
        self,
        inner: EngineLoader,
        catalogs: Sequence[ModelCatalog],
        drafts: Mapping[ModelId, DraftChoice],
    ) -> None:
        self._inner = inner
        self._catalogs = catalogs
        self._drafts = drafts

    @property
    def memory(self) -> int:
        return self._inner.memory

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Of both. Raises ModelUnusable when there is no such draft, and what `inner` does."""
        own = await self._inner.profile(card, kv_bits)
        draft = await self._draft(card.id)
        return own.beside(await self._inner.profile(draft.card, None)) if draft else own

    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:
        """Raises ModelUnusable when there is no such draft, and what `inner` does."""
        draft = await self._draft(card.id)
        return await self._inner.load(card, replace(plan, draft=draft))

    async def _draft(self, model: ModelId) -> Draft | None:
        choice = self._drafts.get(model)
        if choice is None:
            return None
        for catalog in self._catalogs:
            try:
                return Draft(await catalog.find(choice.model), choice.tokens)
            except ModelNotFound:
                continue
        raise ModelUnusable(
            f"`{choice.model}`, the draft model of `{model}` (`draft_model`), is not on this "
            f"machine. Fetch it (`portico pull {choice.model}`), or leave the setting out."
        )
