"""The models that hold memory: loading, loaded and leaving, and the ledger of their bytes."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from application.failures import Failures
from application.feed import Feed
from application.pool_state import PoolEvent, PoolEventKind, PoolLimits, ResidentSnapshot
from application.ports import Clock, Engine, EngineLoader, EngineStats
from application.refusals import NeverFits, NoRoomNow
from application.slots import Slot
from domain.errors import DomainError, EngineFailed
from domain.memory import LoadPlan, MemoryProfile, ModelPolicy, plan_load
from domain.models import ModelCard, ModelId
from domain.residency import (
    Admit,
    Estimate,
    Fit,
    Refuse,
    Resident,
    Wait,
    estimate,
    plan_admission,
    room_at_most,
)

logger = logging.getLogger("portico.models")

_ALARMING = {PoolEventKind.DIED, PoolEventKind.HUNG, PoolEventKind.LOAD_FAILED}
_LATE_LOADS = 1.0  # seconds that an exit has for the processes of loads that it cancels
# Seconds between two looks at the engines: one that dies amid no request tells nobody.
_SHORTEST_WATCH, _LONGEST_WATCH = 0.01, 1.0
_UNLOADING = 10.0  # seconds beyond `hang_timeout` after which an unload has hung


class Residents:
    """Loads and unloads; never more than the budget. `changed` is called whenever those who wait
    may have reason to hope; `opened` when a model has been loaded.
    """

    def __init__(
        self,
        loader: EngineLoader,
        clock: Clock,
        limits: PoolLimits,
        opened: Callable[[Slot], None],
        changed: Callable[[], None],
    ) -> None:
        self._loader = loader
        self._clock = clock
        self._limits = limits
        self._opened = opened
        self._changed = changed
        self._slots: dict[ModelId, Slot] = {}
        self._leaving: list[Slot] = []
        self._pins: dict[ModelId, bool] = {}
        self._last_uses: dict[ModelId, float] = {}  # of models that have left memory
        self._tasks: set[asyncio.Task[None]] = set()
        self._hopeless: set[asyncio.Task[None]] = set()  # they wait for engines that hang
        self._watch: asyncio.TimerHandle | None = None
        self.failures = Failures(clock)
        self.feed: Feed[PoolEvent] = Feed()

    def find(self, model: ModelId) -> Slot | None:
        return self._slots.get(model)

    @property
    def slots(self) -> tuple[Slot, ...]:
        return tuple(self._slots.values())

    @property
    def leaving(self) -> int:
        """Bytes of models on their way out."""
        return sum(slot.need for slot in self._leaving)

    @property
    def used(self) -> int:
        return self.leaving + sum(slot.need for slot in self._slots.values())

    @property
    def hung(self) -> tuple[ModelId, ...]:
        """Models whose engines make no progress, noticed just now or given up before."""
        leaving = [slot for slot in self._leaving if slot.hung]
        return tuple(s.card.id for s in [*leaving, *filter(self._hangs, self.slots)])

    @property
    def _budget(self) -> int:
        """Without what nobody can get back."""
        return self._limits.memory_budget - sum(slot.need for slot in self._leaving if slot.hung)

    def idle(self, model: ModelId) -> float | None:
        """Seconds since its last use, in memory or not any more; None if it never was."""
        slot = self._slots.get(model)
        if slot and slot.busy:
            return 0.0
        last_use = slot.last_used if slot else self._last_uses.get(model)
        return None if last_use is None else self._clock() - last_use

    def pinned(self, model: ModelId) -> bool:
        return self._pins.get(model, self._limits.policy_of(model).pinned)

    def pin(self, model: ModelId, pinned: bool) -> None:
        self._pins[model] = pinned
        kind = PoolEventKind.PINNED if pinned else PoolEventKind.UNPINNED
        self._tell(kind, model, "it was asked for")
        slot = self._slots.get(model)
        if slot:
            self.rest(slot)
        self._changed()

    def plan(self, card: ModelCard, profile: MemoryProfile, policy: ModelPolicy) -> LoadPlan:
        """What the policy leaves open is filled in with what fits the budget, pins respected."""
        others = [resident for resident in self._residents() if resident.id != card.id]
        room = room_at_most(others, self._budget)
        return plan_load(profile, policy, card.context_length, room, self._limits.slots)

    def estimate(self, card: ModelCard, plan: LoadPlan) -> Estimate:
        budget = self._limits.memory_budget
        return estimate(card.id, plan, card.context_length, self._residents(), budget)

    def place(self, card: ModelCard, profile: MemoryProfile) -> Slot | None:
        """Start a load; None when it has to wait. Raises ModelTooLarge when it can never fit,
        MemoryBusy when a hung engine is in its way, EngineResting when it has died too often.

        Models on their way out hold their memory until they are gone, and are counted as gone
        when it is decided who else has to go.
        """
        self.failures.check(card.id)
        plan = self.plan(card, profile, self._limits.policy_of(card.id))
        need, budget = plan.need.total, self._budget
        match plan_admission(self._residents(), need, budget):
            case Admit(evict):
                for model in evict:
                    self.evict(model, f"to make room for `{card.id}`")
                if self.used + need <= self._limits.memory_budget:
                    return self._begin(card, plan)
            case Refuse():
                raise self._refusal(card, plan)
            case Wait():
                pass
        return None

    def evict(self, model: ModelId, reason: str, error: DomainError | None = None) -> None:
        """Its memory counts until it has been given back. `error` is what requests in flight
        are told, if there are any.
        """
        slot = self._slots.pop(model)
        assert slot.engine is not None  # noqa: S101 - loading models are never evicted
        self._disarm(slot)
        self._last_uses[model] = self._clock() if slot.busy else slot.last_used
        self._leaving.append(slot)
        self._tell(PoolEventKind.UNLOADING, model, reason)
        slot.due = self._clock() + self._limits.hang_timeout + _UNLOADING
        slot.unload = self._spawn(self._leave(slot, slot.engine, reason, error))
        if slot.hung:
            self._give_up_on(slot.unload)

    def evict_broken(self) -> None:
        """Engines that died, and those that hang, whose requests would wait in silence; loads and
        unloads, too.
        """
        for slot in self.slots:
            if slot.broken:
                self._bury(slot, PoolEventKind.DIED, "its engine broke")
            elif self._hangs(slot) and slot.engine is None:
                self._abandon(slot)
            elif self._hangs(slot):
                slot.hung = True
                silence = f"its engine hung: no sign of life for {self._limits.hang_timeout:g} s"
                self._bury(slot, PoolEventKind.HUNG, silence)
        for slot in self._leaving:
            if not slot.hung and self._clock() >= slot.due:
                self._strand(slot)

    def rest(self, slot: Slot) -> None:
        """It has nothing to do: let it leave when its time to live has passed."""
        self._disarm(slot)
        ttl = self._limits.policy_of(slot.card.id).idle_ttl
        if ttl is not None and not slot.busy and not self.pinned(slot.card.id):
            left = max(slot.last_used + ttl - self._clock(), 0.0)
            slot.timer = asyncio.get_running_loop().call_later(left, self.expire_idle)

    def wake(self, slot: Slot) -> None:
        """It has something to do."""
        self._disarm(slot)

    def expire_idle(self) -> None:
        """Evict who has been idle for longer than its time to live."""
        now = self._clock()
        for slot in self.slots:
            model = slot.card.id
            ttl = self._limits.policy_of(model).idle_ttl
            if ttl is None or slot.busy or self.pinned(model):
                continue
            if now - slot.last_used >= ttl:
                self.evict(model, f"it was idle for {ttl:g} s")
            else:
                self.rest(slot)

    async def gone(self, slot: Slot) -> None:
        """Wait until an evicted model has given its memory back, or hangs."""
        assert slot.unload is not None  # noqa: S101 - it was evicted
        while not (slot.unload.done() or slot.hung):
            await asyncio.wait({slot.unload}, timeout=_LONGEST_WATCH)

    async def close(self, patience: float, for_loads: float) -> None:
        """Close every engine, after loads that are under way. Neither a load nor an engine that
        hangs may hang the exit: both patiences are in seconds.
        """
        if self._watch:
            self._watch.cancel()
        if loads := {slot.load for slot in self.slots if slot.load and slot.engine is None}:
            _, late = await asyncio.wait(loads, timeout=for_loads)
            for load in late:
                load.cancel()
            await asyncio.wait(loads, timeout=min(patience, _LATE_LOADS))
        slots = self.slots
        self._slots.clear()
        for slot in slots:
            self._disarm(slot)
            if slot.engine:
                self._spawn(slot.engine.close())
        if hopeful := self._tasks - self._hopeless:
            await asyncio.wait(hopeful, timeout=patience)
        for task in self._tasks:
            task.cancel()
        self.feed.close()

    def describe(self, slot: Slot) -> ResidentSnapshot:
        engine, model, now = slot.engine, slot.card.id, self._clock()
        return ResidentSnapshot(
            slot.card,
            slot.state,
            slot.plan,
            slot.need,
            slot.leases,
            len(slot.waiters),
            idle=0.0 if slot.busy else now - slot.last_used,
            silence=now - engine.heartbeat if engine else 0.0,
            pinned=self.pinned(model),
            idle_ttl=self._limits.policy_of(model).idle_ttl,
            stats=engine.stats if engine else EngineStats(),
        )

    def _begin(self, card: ModelCard, plan: LoadPlan) -> Slot:
        now = self._clock()
        due = now + self._limits.longest_load(plan.need.weights)
        slot = Slot(card, plan, plan.need.total, now, self._limits.slots, due)
        self._slots[card.id] = slot
        self._tell(PoolEventKind.LOADING, card.id, "it was asked for")
        slot.load = self._spawn(self._load(slot))
        self._keep_watch()
        return slot

    async def _load(self, slot: Slot) -> None:
        failure: DomainError = EngineFailed(f"The model `{slot.card.id}` could not be loaded.")
        try:
            engine = await self._loader.load(slot.card, slot.plan)
            if slot.hung:  # it came in the moment in which it was given up
                await engine.close()
            else:
                self._open(slot, engine)
        except DomainError as error:
            failure = error
        finally:
            if slot.hung:
                self._leaving.remove(slot)
                self._tell(PoolEventKind.UNLOADED, slot.card.id, "its load hung")
            elif slot.engine is None:
                self._give_up(slot, failure)
            self._changed()

    def _open(self, slot: Slot, engine: Engine) -> None:
        slot.engine = engine
        self._measure(slot, engine)
        self._opened(slot)
        self.rest(slot)
        self._keep_watch()

    def _abandon(self, slot: Slot) -> None:
        """Its load hangs. Who waits for it is told; what it holds counts until it lets go, which
        is soon for a process, and with a thread may be never.
        """
        assert slot.load is not None  # noqa: S101 - it has no engine
        model, waiters = slot.card.id, slot.waiters
        seconds = self._limits.longest_load(slot.plan.need.weights)
        reason = f"its load hung: it did not end within {seconds:.0f} s"
        slot.hung, slot.waiters = True, []
        del self._slots[model]
        self._leaving.append(slot)
        self.failures.died(model, 0.0, reason)
        self._tell(PoolEventKind.HUNG, model, reason)
        self._give_up_on(slot.load)
        slot.load.cancel()
        for waiter in waiters:
            waiter.refuse(EngineFailed(f"The model `{model}` failed: {reason}."))

    def _strand(self, slot: Slot) -> None:
        """Its unload hangs, and nobody gets its memory back."""
        assert slot.unload is not None  # noqa: S101 - it is on its way out
        slot.hung = True
        self._give_up_on(slot.unload)
        seconds = self._limits.hang_timeout + _UNLOADING
        reason = f"its unload hung: it did not end within {seconds:g} s"
        self._tell(PoolEventKind.HUNG, slot.card.id, reason)

    def _give_up_on(self, task: asyncio.Task[None]) -> None:
        """No exit waits for it."""
        self._hopeless.add(task)
        task.add_done_callback(self._hopeless.discard)

    def _measure(self, slot: Slot, engine: Engine) -> None:
        """What it weighs is known now. Should that be more than was thought, idle ones go."""
        planned = slot.plan.need
        slot.need = planned.total - planned.weights + engine.footprint
        slot.last_used = slot.loaded_at = self._clock()
        others = [resident for resident in self._residents() if resident.id != slot.card.id]
        match plan_admission(others, slot.need, self._limits.memory_budget):
            case Admit(evict):
                for model in evict:
                    self.evict(model, f"`{slot.card.id}` turned out larger than it seemed")
            case Wait() | Refuse():
                pass
        self._tell(PoolEventKind.LOADED, slot.card.id, "it is ready")

    def _give_up(self, slot: Slot, failure: DomainError) -> None:
        del self._slots[slot.card.id]
        self.failures.load_failed(slot.card.id, failure)
        self._tell(PoolEventKind.LOAD_FAILED, slot.card.id, str(failure))
        waiters, slot.waiters = slot.waiters, []
        for waiter in waiters:
            waiter.refuse(failure)

    async def _leave(
        self, slot: Slot, engine: Engine, reason: str, error: DomainError | None
    ) -> None:
        try:
            await engine.close(error)
        finally:
            self._leaving.remove(slot)
            self._tell(PoolEventKind.UNLOADED, slot.card.id, reason)
            self._changed()

    def _disarm(self, slot: Slot) -> None:
        if slot.timer:
            slot.timer.cancel()
            slot.timer = None

    def _hangs(self, slot: Slot) -> bool:
        if slot.engine is None:
            return self._clock() >= slot.due
        if slot.broken:
            return False
        return self._clock() - slot.engine.heartbeat >= self._limits.hang_timeout

    def _bury(self, slot: Slot, kind: PoolEventKind, reason: str) -> None:
        model = slot.card.id
        self.failures.died(model, self._clock() - slot.loaded_at, reason)
        self._tell(kind, model, reason)
        self.evict(model, reason, EngineFailed(f"The model `{model}` failed: {reason}."))

    def _keep_watch(self) -> None:
        """Look at the engines again: at the latest when one of them, or a load, may have hung."""
        if self._watch:
            self._watch.cancel()
        patience = self._limits.hang_timeout
        dues = [s.engine.heartbeat + patience if s.engine else s.due for s in self.slots]
        dues += [slot.due for slot in self._leaving if not slot.hung]
        if dues:
            left = min(max(min(dues) - self._clock(), _SHORTEST_WATCH), _LONGEST_WATCH)
            self._watch = asyncio.get_running_loop().call_later(left, self._look)

    def _look(self) -> None:
        self._changed()  # which evicts the broken, and serves those who waited for them
        self._keep_watch()

    def _refusal(self, card: ModelCard, plan: LoadPlan) -> DomainError:
        estimated = self.estimate(card, plan)
        stuck = [slot for slot in self._leaving if slot.hung]
        if not stuck or estimated.fit is Fit.NEVER:
            return NeverFits(estimated)
        names = ", ".join(f"`{slot.card.id}`" for slot in stuck)
        reason = f"A hung engine ({names}) holds the memory until the server is restarted."
        return NoRoomNow(estimated, self._limits.retry_after, reason)

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _residents(self) -> list[Resident]:
        return [
            Resident(
                slot.card.id,
                slot.need,
                slot.last_used,
                leased=slot.busy,
                pinned=self.pinned(slot.card.id),
            )
            for slot in self._slots.values()
        ]

    def _tell(self, kind: PoolEventKind, model: ModelId, reason: str) -> None:
        level = logging.WARNING if kind in _ALARMING else logging.INFO
        logger.log(level, "%s: %s (%s)", model, kind, reason)
        self.feed.say(PoolEvent(kind, model, reason, self.used, self._limits.memory_budget))
