"""The loaded models: leases, loads shared by all who ask, eviction, first come first served.

Lives on one event loop; nothing here blocks, and giving a lease back never awaits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from application.ports import Clock, Engine, EngineLoader, EngineStats, ModelCatalog
from domain.errors import DomainError, EngineFailed, ModelTooLarge, ServerBusy, ShuttingDown
from domain.models import ModelCard, ModelId, ModelState
from domain.residency import Admit, Refuse, Resident, Wait, plan_admission

_CLOSING_PATIENCE = 10.0  # seconds for loads that are under way when the pool closes


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """memory_budget: bytes for all models together. max_waiting: requests that may wait."""

    memory_budget: int
    max_waiting: int = 1024
    retry_after: float = 1.0  # seconds, what a refused client is told to wait


@dataclass(frozen=True, slots=True)
class ResidentSnapshot:
    """One model that holds memory, at a moment in time."""

    id: ModelId
    state: ModelState
    need: int  # bytes
    leases: int
    waiting: int  # requests that wait for its load
    silence: float  # seconds since the engine's last sign of life
    stats: EngineStats


@dataclass(frozen=True, slots=True)
class PoolSnapshot:
    """The pool at a moment in time."""

    residents: tuple[ResidentSnapshot, ...]
    waiting: int  # requests that wait for memory
    memory_budget: int  # bytes
    closing: bool = False  # no new leases

    @property
    def memory_used(self) -> int:
        return sum(resident.need for resident in self.residents)

    @property
    def leases(self) -> int:
        return sum(resident.leases for resident in self.residents)


@dataclass(slots=True, eq=False)
class _Waiter:
    card: ModelCard
    granted: "asyncio.Future[_Slot]"

    def refuse(self, error: DomainError) -> None:
        if not self.granted.done():  # its client may have left in this very moment
            self.granted.set_exception(error)


@dataclass(slots=True, eq=False)
class _Slot:
    """A model that holds memory: loading while it has no engine."""

    card: ModelCard
    need: int
    last_used: float
    engine: Engine | None = None
    leases: int = 0
    waiters: list[_Waiter] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        """Requests that wait for its load, or for a place in its batch."""
        return len(self.waiters) + (max(self.leases - self.engine.slots, 0) if self.engine else 0)

    @property
    def busy(self) -> bool:
        return self.leases > 0 or self.engine is None

    @property
    def broken(self) -> bool:
        return self.engine is not None and not self.engine.alive


class ModelPool:
    """Grants leases on loaded models, within a memory budget."""

    def __init__(
        self, catalog: ModelCatalog, loader: EngineLoader, clock: Clock, limits: PoolLimits
    ) -> None:
        self._catalog = catalog
        self._loader = loader
        self._clock = clock
        self._limits = limits
        self._slots: dict[ModelId, _Slot] = {}
        self._leaving: list[_Slot] = []
        self._queue: deque[_Waiter] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leases = 0
        self._drained = asyncio.Event()
        self._closing = False

    @asynccontextmanager
    async def lease(self, model: ModelId) -> AsyncIterator[Engine]:
        """An engine that stays loaded until the block ends.

        Raises ModelNotFound, ModelTooLarge, ServerBusy, EngineFailed (it could not be loaded)
        or ShuttingDown.
        """
        slot = await self._acquire(model)
        try:
            assert slot.engine is not None  # noqa: S101 - granted slots are loaded
            yield slot.engine
        finally:
            self._release(slot)

    def state(self, model: ModelId) -> ModelState:
        slot = self._slots.get(model)
        if slot is None or slot.broken:
            return ModelState.LOADABLE
        return ModelState.LOADING if slot.engine is None else ModelState.HOT

    def snapshot(self) -> PoolSnapshot:
        """Who is loaded, leased and waiting, right now."""
        return PoolSnapshot(
            tuple(self._describe(slot) for slot in self._slots.values()),
            len(self._queue),
            self._limits.memory_budget,
            self._closing,
        )

    async def close(self, grace: float = 0.0) -> None:
        """Refuse new leases, wait `grace` seconds for those held, then close every engine."""
        self._closing = True
        for waiter in self._queue:
            waiter.refuse(ShuttingDown())
        self._queue.clear()
        for slot in self._slots.values():
            self._fail(slot, ShuttingDown())
        if self._leases:
            self._drained.clear()
            try:
                await asyncio.wait_for(self._drained.wait(), grace)
            except TimeoutError:
                pass
        if self._tasks:  # loads can't be interrupted; a hung one must not hang the exit
            await asyncio.wait(self._tasks, timeout=_CLOSING_PATIENCE)
        engines = [slot.engine for slot in self._slots.values() if slot.engine]
        self._slots.clear()
        await asyncio.gather(*(engine.close() for engine in engines))

    async def _acquire(self, model: ModelId) -> _Slot:
        card = await self._catalog.find(model)
        if self._closing:
            raise ShuttingDown
        self._check_waiting_room(card.id)
        waiter = _Waiter(card, asyncio.get_running_loop().create_future())
        self._queue.append(waiter)
        self._pump()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    def _check_waiting_room(self, model: ModelId) -> None:
        """Raises ServerBusy when a newcomer would have to wait, and too many do already."""
        slot = self._slots.get(model)
        waiting = len(self._queue) + sum(s.waiting for s in self._slots.values())
        engine = slot.engine if slot and not self._queue else None
        at_once = slot is not None and engine is not None and slot.leases < engine.slots
        if not at_once and waiting >= self._limits.max_waiting:
            raise ServerBusy(
                f"{waiting} requests are waiting already; please try again.",
                self._limits.retry_after,
            )

    def _grant(self, slot: _Slot, waiter: _Waiter) -> None:
        if not waiter.granted.done():  # its client may have left in this very moment
            slot.leases += 1
            self._leases += 1
            waiter.granted.set_result(slot)

    def _withdraw(self, waiter: _Waiter) -> None:
        """The client left while it waited. The lease may have been granted at that very moment."""
        if waiter.granted.done() and not waiter.granted.cancelled():
            if waiter.granted.exception() is None:
                self._release(waiter.granted.result())
            return
        if waiter in self._queue:
            self._queue.remove(waiter)
        slot = self._slots.get(waiter.card.id)
        if slot and waiter in slot.waiters:
            slot.waiters.remove(waiter)
        self._pump()

    def _release(self, slot: _Slot) -> None:
        slot.leases -= 1
        self._leases -= 1
        slot.last_used = self._clock()
        if self._leases == 0:
            self._drained.set()
        self._pump()

    def _pump(self) -> None:
        """Serve the queue from its head, as far as memory goes."""
        for model in [model for model, slot in self._slots.items() if slot.broken]:
            self._evict(model)
        while self._queue and not self._closing:
            waiter = self._queue[0]
            slot = self._slots.get(waiter.card.id)
            if slot is None and not waiter.granted.done():
                slot = self._place(waiter)
                if slot is None and not waiter.granted.done():
                    return  # it waits for memory, and so does everyone behind it
            self._queue.popleft()
            if slot and slot.engine:
                self._grant(slot, waiter)
            elif slot:
                slot.waiters.append(waiter)

    def _place(self, waiter: _Waiter) -> _Slot | None:
        """Start the load that `waiter` needs; None when it must wait, or can never be served.

        Models on their way out hold their memory until they are gone, and are counted as gone
        when it is decided who else has to go.
        """
        card, budget = waiter.card, self._limits.memory_budget
        match plan_admission(self._residents(), card.weight_bytes, budget):
            case Admit(evict):
                for model in evict:
                    self._evict(model)
                used = sum(slot.need for slot in (*self._slots.values(), *self._leaving))
                if used + card.weight_bytes <= budget:
                    slot = self._slots[card.id] = _Slot(card, card.weight_bytes, self._clock())
                    self._spawn(self._load(slot))
                    return slot
            case Refuse():
                waiter.refuse(ModelTooLarge(str(card.id), card.weight_bytes, budget))
            case Wait():
                pass
        return None

    async def _load(self, slot: _Slot) -> None:
        failure: DomainError = EngineFailed(f"The model `{slot.card.id}` could not be loaded.")
        try:
            self._opened(slot, await self._loader.load(slot.card))
        except DomainError as error:
            failure = error
        finally:
            if slot.engine is None:
                del self._slots[slot.card.id]
                self._fail(slot, failure)
            self._pump()

    def _opened(self, slot: _Slot, engine: Engine) -> None:
        slot.engine = engine
        slot.need = engine.footprint
        slot.last_used = self._clock()
        waiters, slot.waiters = slot.waiters, []
        for waiter in waiters:
            self._grant(slot, waiter)
        self._make_fit(slot)

    def _fail(self, slot: _Slot, error: DomainError) -> None:
        waiters, slot.waiters = slot.waiters, []
        for waiter in waiters:
            waiter.refuse(error)

    def _make_fit(self, slot: _Slot) -> None:
        """A model may turn out larger than its card said: let idle ones go for it."""
        others = [resident for resident in self._residents() if resident.id != slot.card.id]
        match plan_admission(others, slot.need, self._limits.memory_budget):
            case Admit(evict):
                for model in evict:
                    self._evict(model)
            case Wait() | Refuse():
                pass

    def _evict(self, model: ModelId) -> None:
        slot = self._slots.pop(model)
        assert slot.engine is not None  # noqa: S101 - loading models are never evicted
        self._leaving.append(slot)
        self._spawn(self._leave(slot, slot.engine))

    async def _leave(self, slot: _Slot, engine: Engine) -> None:
        try:
            await engine.close()
        finally:
            self._leaving.remove(slot)
            self._pump()

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _residents(self) -> list[Resident]:
        return [
            Resident(slot.card.id, slot.need, slot.last_used, leased=slot.busy)
            for slot in self._slots.values()
        ]

    def _describe(self, slot: _Slot) -> ResidentSnapshot:
        engine = slot.engine
        return ResidentSnapshot(
            slot.card.id,
            self.state(slot.card.id),
            slot.need,
            slot.leases,
            len(slot.waiters),
            self._clock() - engine.heartbeat if engine else 0.0,
            engine.stats if engine else EngineStats(),
        )
