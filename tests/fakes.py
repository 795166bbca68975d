"""The ports of application/ports.py as tests like them: quick, obedient, and easy to question."""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from pathlib import Path

from application.ports import Clock, EngineStats, PullOrder
from domain.chat import ChatCommand, TextCommand
from domain.errors import (
    DomainError,
    EngineFailed,
    HubFailed,
    HubFault,
    InvalidRequest,
    ModelNotFound,
)
from domain.memory import CacheLayers, LoadPlan, MemoryProfile
from domain.models import (
    CachedModel,
    DiskUse,
    FoundModel,
    ModelCard,
    ModelId,
    PullPhase,
    PullProgress,
)
from domain.outputs import End, EngineOutput, Markup, Piece, PromptProgress


def make_card(name: str, weight_bytes: int = 1) -> ModelCard:
    return ModelCard(ModelId.parse(name), "", Path(f"/models/{name}"), weight_bytes, 512, 0)


class FakeClock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


class FakeCatalog:
    """Holds the cards it was given. elsewhere: those that are not ours to delete."""

    def __init__(self, *cards: ModelCard, elsewhere: Collection[str] = ()) -> None:
        self._cards = {card.id: card for card in cards}
        self._elsewhere = {ModelId.parse(name) for name in elsewhere}

    async def all(self) -> tuple[ModelCard, ...]:
        return tuple(self._cards.values())

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""
        if model not in self._cards:
            raise ModelNotFound(str(model))
        return self._cards[model]

    def put(self, card: ModelCard) -> None:
        """Another model, or another revision of one."""
        self._cards[card.id] = card

    async def remove(self, model: ModelId) -> int:
        """Raises ModelNotFound, and InvalidRequest for those elsewhere."""
        card = await self.find(model)
        if model in self._elsewhere:
            raise InvalidRequest(f"`{model}` is not ours to delete.", "model")
        del self._cards[model]
        return card.weight_bytes

    def invalidate(self) -> None:
        """Nothing is remembered."""

    async def disk_use(self) -> DiskUse:
        cached = (
            CachedModel(card.id, card.weight_bytes, 0.0, True)
            for card in self._cards.values()
            if card.id not in self._elsewhere
        )
        return DiskUse(Path("/models"), 10**9, tuple(cached))


class FakeEngine:
    """Says "ok". Dies when `alive` is set to False, hangs from `hung_at` on; closes once
    `may_close` is set.
    """

    markup = Markup()
    stats = EngineStats()
    slots = 1_000

    def __init__(self, card: ModelCard, plan: LoadPlan, footprint: int, clock: Clock) -> None:
        self.card = card
        self.plan = plan
        self.footprint = footprint
        self.hung_at: float | None = None
        self._clock = clock
        self.alive = True
        self.error: DomainError | None = None  # what it was closed with
        self.closes = 0
        self.closed = False
        self.may_close = asyncio.Event()
        self.may_close.set()

    @property
    def heartbeat(self) -> float:
        return self._clock() if self.hung_at is None else self.hung_at

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        yield PromptProgress(1, 1)
        yield Piece("ok")
        yield End("stop")

    async def close(self, error: DomainError | None = None) -> None:
        self.error = error
        self.closes += 1
        self.alive = False
        await self.may_close.wait()
        self.closed = True


class FakeLoader:
    """Loads at once.

    memory: what the device has, in bytes. layers: the KV caches of every model.
    footprints: what engines turn out to need, where that is not what their cards say.
    errors: what loading a model raises, for as long as it stands there.
    """

    memory = 10**9

    def __init__(self, clock: Clock, footprints: Mapping[ModelId, int] | None = None) -> None:
        self.layers: tuple[CacheLayers, ...] = ()
        self.errors: dict[ModelId, Exception] = {}
        self.loads: list[ModelId] = []
        self.engines: list[FakeEngine] = []
        self._clock = clock
        self._footprints = footprints or {}

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        return MemoryProfile(card.weight_bytes, self.layers)

    async def load(self, card: ModelCard, plan: LoadPlan) -> FakeEngine:
        """Raises what `errors` says."""
        self.loads.append(card.id)
        await asyncio.sleep(0)
        if card.id in self.errors:
            raise self.errors[card.id]
        return self._make(card, plan)

    @property
    def bytes_held(self) -> int:
        """What the engines hold that have not given their memory back, their reserves included."""
        open_engines = [engine for engine in self.engines if not engine.closed]
        return sum(engine.footprint + engine.plan.need.kv_cache for engine in open_engines)

    def _make(self, card: ModelCard, plan: LoadPlan) -> FakeEngine:
        footprint = self._footprints.get(card.id, card.weight_bytes)
        engine = FakeEngine(card, plan, footprint, self._clock)
        self.engines.append(engine)
        return engine


class StuckLoader(FakeLoader):
    """Loads hang until `finish` or `fail` is called. Engines close once they are let go, if
    `slow_to_close`. may_stop: cancelled loads hold their memory until it is set."""

    def __init__(
        self,
        clock: Clock,
        footprints: Mapping[ModelId, int] | None = None,
        *,
        slow_to_close: bool = False,
    ) -> None:
        super().__init__(clock, footprints)
        self._slow_to_close = slow_to_close
        self.may_stop = asyncio.Event()
        self.may_stop.set()
        self._pending: list[tuple[ModelCard, LoadPlan, asyncio.Future[FakeEngine]]] = []

    async def load(self, card: ModelCard, plan: LoadPlan) -> FakeEngine:
        """Raises what `fail` is given."""
        self.loads.append(card.id)
        outcome: asyncio.Future[FakeEngine] = asyncio.get_running_loop().create_future()
        self._pending.append((card, plan, outcome))
        try:
            return await outcome
        except asyncio.CancelledError:
            await self.may_stop.wait()
            raise
        finally:
            self._pending.remove((card, plan, outcome))

    @property
    def loading(self) -> list[ModelId]:
        """The loads that were begun and neither finished nor failed."""
        return [card.id for card, _, outcome in self._pending if not outcome.done()]

    @property
    def bytes_held(self) -> int:
        """As of FakeLoader, with the loads under way."""
        loading = (plan.need.total for _, plan, outcome in self._pending if not outcome.done())
        return super().bytes_held + sum(loading)

    def finish(self, model: ModelId) -> FakeEngine:
        card, plan, outcome = self._find(model)
        engine = self._make(card, plan)
        if self._slow_to_close:
            engine.may_close.clear()
        outcome.set_result(engine)
        return engine

    def fail(self, model: ModelId, error: DomainError | None = None) -> None:
        outcome = self._find(model)[2]
        outcome.set_exception(error or EngineFailed(f"{model} failed to load"))

    def _find(self, model: ModelId) -> "tuple[ModelCard, LoadPlan, asyncio.Future[FakeEngine]]":
        (found,) = (load for load in self._pending if load[0].id == model and not load[2].done())
        return found


class FakeSource:
    """A hub in memory.

    found: its models; with none, every model is there to be pulled.
    progress: what every pull says, one after the other. fault: what a pull ends with instead of
    DONE. may_go_on: pulls stop before their second word until it is set.
    """

    def __init__(self, *found: FoundModel) -> None:
        self.found = found
        self.progress = (
            PullProgress(PullPhase.RESOLVING),
            PullProgress(PullPhase.DOWNLOADING, "c0ffee", 50, 100, 1, 2, 25.0),
            PullProgress(PullPhase.VERIFYING, "c0ffee", 100, 100, 2, 2),
        )
        self.fault: Exception | None = None
        self.may_go_on = asyncio.Event()
        self.may_go_on.set()
        self.pulls: list[tuple[ModelId, str | None]] = []
        self.stopped = 0  # pulls that were closed before their end

    async def search(self, text: str, limit: int) -> tuple[FoundModel, ...]:
        """Raises `fault`."""
        if self.fault:
            raise self.fault
        matches = [found for found in self.found if text.lower() in str(found.id).lower()]
        return tuple(sorted(matches, key=lambda found: -found.downloads))[:limit]

    async def pull(
        self, model: ModelId, revision: str | None
    ) -> AsyncGenerator[PullProgress, None]:
        """Raises `fault`, and HubFailed for what is not there."""
        self.pulls.append((model, revision))
        if self.found and model not in {found.id for found in self.found}:
            raise HubFailed(HubFault.MISSING, f"The hub has no `{model}`.")
        try:
            for progress in self.progress:
                yield progress
                await self.may_go_on.wait()
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped += 1
            raise
        if self.fault:
            raise self.fault
        yield PullProgress(PullPhase.DONE, "c0ffee", 100, 100, 2, 2)


class FakeJournal:
    """What is written down, in `orders`; `left` is what a server before this one left."""

    def __init__(self, *left: PullOrder) -> None:
        self.orders = {order.id: order for order in left}
        self._left = set(self.orders)  # that no server has taken over yet

    def claim(self) -> tuple[PullOrder, ...]:
        claimed = [self.orders[job] for job in sorted(self._left, key=int)]
        self._left = set()
        return tuple(claimed)

    def write(self, order: PullOrder) -> None:
        self.orders[order.id] = order

    def erase(self, job: str) -> None:
        if job not in self._left:
            self.orders.pop(job, None)

    def close(self) -> None:
        """The next server may be given this same journal."""
        self._left = set(self.orders)
