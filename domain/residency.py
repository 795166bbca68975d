"""Who may load, who must go, who waits: the memory policy of the model pool."""

from collections.abc import Collection
from dataclasses import dataclass

from domain.models import ModelId


@dataclass(frozen=True, slots=True)
class Resident:
    """A model that holds memory, loaded or loading."""

    id: ModelId
    need: int  # bytes
    last_used: float  # any clock that only moves forward
    leased: bool = False
    pinned: bool = False

    @property
    def evictable(self) -> bool:
        return not (self.leased or self.pinned)


@dataclass(frozen=True, slots=True)
class Admit:
    """Load it, after these have gone, in this order."""

    evict: tuple[ModelId, ...] = ()


@dataclass(frozen=True, slots=True)
class Wait:
    """It will fit once leases end."""


@dataclass(frozen=True, slots=True)
class Refuse:
    """It can never fit."""


def plan_admission(
    residents: Collection[Resident], need: int, budget: int
) -> Admit | Wait | Refuse:
    """Decide on a model that needs `need` bytes, under `budget` bytes in all.

    Evicts the least recently used first, no more than needed, never a leased or pinned one.
    """
    if need > budget - sum(r.need for r in residents if r.pinned):
        return Refuse()
    missing = need + sum(r.need for r in residents) - budget
    evict: list[ModelId] = []
    for resident in sorted(residents, key=lambda r: r.last_used):
        if missing <= 0:
            break
        if resident.evictable:
            evict.append(resident.id)
            missing -= resident.need
    if missing > 0:
        return Wait()
    return Admit(tuple(evict))
