"""The loaded models: leases, loads shared by all who ask, eviction, first come first served.

Lives on one event loop; nothing here blocks, and giving a lease back never awaits.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from application.pool_state import PoolEvent, PoolLimits, PoolSnapshot, ResidentSnapshot
from application.ports import Clock, Engine, EngineLoader, ModelCatalog
from application.refusals import FilesUnread, NeverFits, NoRoomNow
from application.residents import Residents
from application.slots import Slot, Waiter
from domain.errors import (
    DomainError,
    EngineFailed,
    InvalidRequest,
    ModelInUse,
    ServerBusy,
    ShuttingDown,
)
from domain.memory import MemoryProfile
from domain.models import ModelCard, ModelId, ModelState
from domain.residency import Estimate, Fit

_CLOSING_PATIENCE = 10.0  # seconds for a load or an engine to end when the pool closes


class ModelPool:
    """Grants leases on loaded models, within a memory budget. It belongs to the event loop that
    first asks for one, as its timers, tasks and engines do.
    """

    def __init__(
        self, catalog: ModelCatalog, loader: EngineLoader, clock: Clock, limits: PoolLimits
    ) -> None:
        self._catalog = catalog
        self._loader = loader
        self._limits = limits
        self._clock = clock
        self._residents = Residents(loader, clock, limits, self._opened, self._pump)
        self._queue: deque[Waiter] = deque()
        self._leases = 0
        self._drained = asyncio.Event()
        self._closing = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def lease(self, model: ModelId) -> AsyncIterator[Engine]:
        """An engine that stays loaded until the block ends.

        Raises ModelNotFound, ModelTooLarge, ServerBusy, EngineFailed (it could not be loaded),
        EngineResting (it has died too often) or ShuttingDown; RuntimeError on another event loop.
        """
        slot = await self._acquire(model)
        try:
            assert slot.engine is not None  # noqa: S101 - granted slots are loaded
            yield slot.engine
            if slot.engine.alive:
                self._residents.failures.forget(slot.card.id)
        finally:
            self._release(slot)

    async def load(
        self, model: ModelId, *, wait: bool = True, pin: bool | None = None
    ) -> ResidentSnapshot:
        """Load a model before anyone asks for it. `pin` is as in `pin`, from the moment it is
        loaded; None leaves that as it is.

        Raises what `lease` raises; without `wait`, MemoryBusy rather than wait until requests to
        other models end.
        """
        slot = await self._acquire(model, wait)
        try:
            if pin is not None:
                self._residents.pin(slot.card.id, pin)
            return self._residents.describe(slot)
        finally:
            self._release(slot)

    async def unload(self, model: ModelId, *, force: bool = False) -> bool:
        """Free a model's memory, and forget its deaths; False when it held none. Returns once the
        memory is free.

        Raises ModelInUse while it is being loaded, and while requests run on it, unless `force`:
        then these fail. EngineFailed when its engine hangs, and keeps the memory.
        """
        self._residents.failures.forget(model)  # whoever asks for it has seen to the cause
        slot = self._residents.find(model)
        if slot is None:
            return False
        if slot.engine is None or (slot.leases and not force):
            loading = slot.engine is None
            raise ModelInUse(str(model), slot.leases + len(slot.waiters), loading=loading)
        gone = EngineFailed(f"The model `{model}` was unloaded amid this request.")
        self._residents.evict(model, "it was asked for", gone)
        await self._residents.gone(slot)
        if slot.hung:
            text = f"The engine of `{model}` hangs: it keeps its memory until the server restarts."
            raise EngineFailed(text)
        return True

    async def pin(self, model: ModelId, pinned: bool) -> None:
        """Keep a model in memory for good, or let it go again; loaded or not.

        Raises ModelNotFound.
        """
        self._residents.pin((await self._catalog.find(model)).id, pinned)

    async def estimate(
        self,
        model: ModelId,
        context_length: int | None = None,
        concurrency: int | None = None,
        kv_bits: int | None = None,
    ) -> Estimate:
        """What the model would need, and whether it would fit. What is None is as it is set.

        Raises ModelNotFound, InvalidRequest or EngineFailed.
        """
        card = await self._catalog.find(model)
        self._check_bounds(card, context_length, concurrency)
        own = self._limits.policy_of(card.id)
        policy = replace(
            own,
            context_length=own.context_length if context_length is None else context_length,
            concurrency=own.concurrency if concurrency is None else concurrency,
            kv_bits=own.kv_bits if kv_bits is None else kv_bits,
        )
        profile = await self._ask_profile(card, policy.kv_bits)
        return self._residents.estimate(card, self._residents.plan(card, profile, policy))

    def resident(self, model: ModelId) -> ResidentSnapshot | None:
        """A model while it holds memory."""
        slot = self._residents.find(model)
        return self._residents.describe(slot) if slot else None

    def state(self, model: ModelId) -> ModelState:
        slot = self._residents.find(model)
        return slot.state if slot else ModelState.LOADABLE

    def context_length(self, card: ModelCard) -> int:
        """The most tokens of one request, as far as is known before the model is loaded."""
        slot = self._residents.find(card.id)
        if slot:
            return slot.plan.context_length
        return min(card.context_length, self._limits.policy_of(card.id).context_length or 2**63)

    def pinned(self, model: ModelId) -> bool:
        return self._residents.pinned(model)

    def idle(self, model: ModelId) -> float | None:
        """Seconds since its last use, in memory or not any more; None if it never was."""
        return self._residents.idle(model)

    def idle_ttl(self, model: ModelId) -> float | None:
        """Seconds without a request after which it leaves; None is never."""
        return self._limits.policy_of(model).idle_ttl

    def reason_to_wait(self, model: ModelId) -> str:
        """What a request for `model` waits for just now, in a few words."""
        slot = self._residents.find(model)
        if slot is None:
            return f"waiting for memory to load {model}"
        if slot.engine is None:
            return f"loading {model}"
        return f"waiting for a place in the batch of {model}" if slot.waiting else "waiting"

    @property
    def full(self) -> bool:
        """As many wait as may."""
        return bool(self._why_full())

    def refusal(self, model: ModelId) -> ServerBusy | None:
        """What a request for a model in memory would be refused with just now, if for nothing
        else, as too many wait for a place already.
        """
        slot = self._residents.find(model)
        if slot is None or self._closing or not (slot.crowded or self._queue):
            return None
        full = self._why_full()
        return ServerBusy(full, self._limits.retry_after) if full else None

    def snapshot(self) -> PoolSnapshot:
        """Who is loaded, leased and waiting, right now."""
        return PoolSnapshot(
            tuple(self._residents.describe(slot) for slot in self._residents.slots),
            len(self._queue),
            self._limits.memory_budget,
            self._residents.leaving,
            self._closing,
            self._residents.hung,
            self._residents.failures.models,
        )

    def events(self) -> AsyncGenerator[PoolEvent, None]:
        """What happens from this call on."""
        return self._residents.feed.listen()

    def watch(self, listener: Callable[[PoolEvent], None]) -> None:
        """Tell it what happens, at the moment when it does."""
        self._residents.feed.tell(listener)

    def expire_idle(self) -> None:
        """Evict whose time to live has passed. Happens by itself; here for other clocks."""
        self._residents.expire_idle()

    async def close(self, grace: float = 0.0, for_loads: float = _CLOSING_PATIENCE) -> None:
        """Refuse new leases, wait `grace` seconds for those held and `for_loads` seconds for loads
        that are under way, then close every engine.
        """
        self._closing = True
        for waiter in [*self._queue, *(w for s in self._residents.slots for w in s.waiters)]:
            waiter.refuse(ShuttingDown())
        self._queue.clear()
        if self._leases:
            self._drained.clear()
            try:
                await asyncio.wait_for(self._drained.wait(), grace)
            except TimeoutError:
                pass
        await self._residents.close(_CLOSING_PATIENCE, for_loads)

    async def _acquire(self, model: ModelId, wait: bool = True) -> Slot:
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise RuntimeError("These models belong to another event loop: make a new container.")
        card = await self._catalog.find(model)
        profile = await self._profile(card)
        self._check_admission(card, profile, wait)
        waiter = Waiter(card, profile, loop.create_future())
        self._queue.append(waiter)
        self._pump()
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            self._withdraw(waiter)
            raise

    async def _profile(self, card: ModelCard) -> MemoryProfile:
        slot = self._residents.find(card.id)
        if slot and slot.card == card:
            return slot.plan.profile
        try:
            return await self._ask_profile(card, self._limits.policy_of(card.id).kv_bits)
        except DomainError:
            slot = self._residents.find(card.id)
            if slot is None:
                raise
            return slot.plan.profile  # only a newer revision is broken; the one in memory answers

    async def _ask_profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Raises EngineFailed, too, when the files can't be read in time."""
        seconds = self._limits.load_timeout
        try:
            async with asyncio.timeout(seconds):
                return await self._loader.profile(card, kv_bits)
        except TimeoutError:
            raise FilesUnread(card.id, seconds) from None

    def _check_bounds(
        self, card: ModelCard, context_length: int | None, concurrency: int | None
    ) -> None:
        if context_length is not None and context_length > card.context_length:
            raise InvalidRequest(
                f"The context of `{card.id}` is {card.context_length} tokens at most.",
                "context_length",
            )
        if concurrency is not None and concurrency > self._limits.slots:
            raise InvalidRequest(
                f"At most {self._limits.slots} requests run at once (`max_batch_size`).",
                "concurrency",
            )

    def _check_admission(self, card: ModelCard, profile: MemoryProfile, wait: bool) -> None:
        """Nobody queues for what can never be. Raises ShuttingDown, ModelTooLarge, EngineResting,
        or ServerBusy when a newcomer would have to wait for memory or for a place in a batch, and
        too many do already; for memory at all, without `wait`.
        """
        if self._closing:
            raise ShuttingDown
        if self._residents.find(card.id):
            refusal = self.refusal(card.id)
            if refusal:
                raise refusal
            return
        self._residents.failures.check(card.id)
        plan = self._residents.plan(card, profile, self._limits.policy_of(card.id))
        estimated = self._residents.estimate(card, plan)
        if estimated.fit is Fit.NEVER:
            raise NeverFits(estimated)
        if not wait:
            self._check_room(estimated)
        full = self._why_full()
        if full and estimated.fit is Fit.AFTER_REQUESTS:
            raise NoRoomNow(estimated, self._limits.retry_after, full)
        if full:
            raise ServerBusy(full, self._limits.retry_after)

    def _why_full(self) -> str:
        """In words, when as many wait as may; for memory or for a place in a batch."""
        waiting = len(self._queue) + sum(s.excess for s in self._residents.slots)
        if waiting < self._limits.max_waiting:
            return ""
        return f"{waiting} requests are waiting already (`max_waiting`); please try again."

    def _check_room(self, estimated: Estimate) -> None:
        """Raises MemoryBusy when the model would have to wait for memory."""
        if estimated.fit is Fit.AFTER_REQUESTS:
            raise NoRoomNow(estimated, self._limits.retry_after)
        if self._queue:
            before = f"{len(self._queue)} requests wait for memory before it."
            raise NoRoomNow(estimated, self._limits.retry_after, before)

    def _opened(self, slot: Slot) -> None:
        waiters, slot.waiters = slot.waiters, []
        for waiter in waiters:
            self._grant(slot, waiter)

    def _grant(self, slot: Slot, waiter: Waiter) -> None:
        if not waiter.granted.done():  # its client may have left in this very moment
            slot.leases += 1
            self._leases += 1
            self._residents.wake(slot)
            waiter.granted.set_result(slot)

    def _withdraw(self, waiter: Waiter) -> None:
        """The client left while it waited. The lease may have been granted at that very moment."""
        if waiter.granted.done() and not waiter.granted.cancelled():
            if waiter.granted.exception() is None:
                self._release(waiter.granted.result())
            return
        if waiter in self._queue:
            self._queue.remove(waiter)
        slot = self._residents.find(waiter.card.id)
        if slot and waiter in slot.waiters:
            slot.waiters.remove(waiter)
        self._pump()

    def _release(self, slot: Slot) -> None:
        slot.leases -= 1
        self._leases -= 1
        slot.last_used = self._clock()
        if self._leases == 0:
            self._drained.set()
        if slot is self._residents.find(slot.card.id):
            self._residents.rest(slot)
        self._pump()

    def _pump(self) -> None:
        """Serve the queue from its head, as far as memory goes."""
        self._residents.evict_broken()
        while self._queue and not self._closing:
            waiter = self._queue[0]
            if not waiter.granted.done():
                try:
                    slot = self._residents.find(waiter.card.id) or self._residents.place(
                        waiter.card, waiter.profile
                    )
                except DomainError as refusal:
                    waiter.refuse(refusal)
                else:
                    if slot is None:
                        return  # it waits for memory, and so does everyone behind it
                    self._seat(slot, waiter)
            self._queue.popleft()

    def _seat(self, slot: Slot, waiter: Waiter) -> None:
        if slot.engine:
            self._grant(slot, waiter)
        else:
            slot.waiters.append(waiter)
