"""Plans for engines that tests load without a pool."""

from domain.memory import CacheLayers, LoadPlan, MemoryProfile
from domain.models import ModelCard


def plan_for(
    card: ModelCard,
    context_length: int | None = None,
    concurrency: int = 32,
    bytes_per_token: int = 1024,
) -> LoadPlan:
    """A KV reserve for so many requests of full length, whatever the model's real layers."""
    profile = MemoryProfile(card.weight_bytes, (CacheLayers(bytes_per_token),))
    return LoadPlan(profile, context_length or card.context_length, concurrency)
