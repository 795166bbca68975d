"""Model pools whose models are a few bytes large."""

from collections.abc import Mapping
from typing import Any

from application.model_pool import ModelPool
from application.pool_state import PoolLimits
from application.ports import Clock
from domain.models import ModelId
from tests.fakes import FakeCatalog, FakeLoader, make_card

BUDGET = 10


def pool_of(
    sizes: Mapping[ModelId, int],
    loader: FakeLoader,
    clock: Clock,
    budget: int = BUDGET,
    **limits: Any,
) -> ModelPool:
    """Of models of these sizes. limits: the other fields of PoolLimits."""
    catalog = FakeCatalog(*(make_card(str(model), size) for model, size in sizes.items()))
    return ModelPool(catalog, loader, clock, PoolLimits(budget, **limits))
