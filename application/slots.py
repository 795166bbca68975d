"""A place in memory, and who waits for one."""

import asyncio
from dataclasses import dataclass, field

from application.ports import Engine
from domain.errors import DomainError
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard, ModelState


@dataclass(slots=True, eq=False)
class Waiter:
    """One request that waits for its model; `granted` gets the slot, or the reason why not."""

    card: ModelCard
    profile: MemoryProfile
    granted: "asyncio.Future[Slot]"

    def refuse(self, error: DomainError) -> None:
        if not self.granted.done():  # its client may have left in this very moment
            self.granted.set_exception(error)


@dataclass(slots=True, eq=False)
class Slot:
    """A model that holds memory: loading while it has no engine."""

    card: ModelCard
    plan: LoadPlan
    need: int
    last_used: float
    places: int  # in its batch, before the engine that has them is there
    due: float  # when its load counts as hung, or its unload
    engine: Engine | None = None
    load: asyncio.Task[None] | None = None
    unload: asyncio.Task[None] | None = None
    leases: int = 0
    waiters: list[Waiter] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None
    loaded_at: float = 0.0
    hung: bool = False  # on its way out, if it ever gets there

    @property
    def waiting(self) -> int:
        """Requests that wait for its load, or for a place in its batch."""
        if self.engine is None:
            return len(self.waiters)
        return max(self.leases - self.engine.slots, self.engine.stats.waiting)

    @property
    def excess(self) -> int:
        """Requests that wait and have no place in its batch, nor will have once it is loaded."""
        return max(len(self.waiters) - self.places, 0) if self.engine is None else self.waiting

    @property
    def crowded(self) -> bool:
        """A newcomer would have no place."""
        if self.engine is None:
            return len(self.waiters) >= self.places
        return self.waiting > 0 or self.leases >= self.engine.slots

    @property
    def busy(self) -> bool:
        return self.leases > 0 or self.engine is None

    @property
    def broken(self) -> bool:
        return self.engine is not None and not self.engine.alive

    @property
    def state(self) -> ModelState:
        if self.broken:
            return ModelState.LOADABLE
        return ModelState.LOADING if self.engine is None else ModelState.HOT
