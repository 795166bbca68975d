"""The ports of application/ports.py as tests like them: quick, obedient, and easy to question."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from application.ports import Clock, EngineStats
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError, EngineFailed, ModelNotFound
from domain.models import ModelCard, ModelId
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
    """Holds the cards it was given."""

    def __init__(self, *cards: ModelCard) -> None:
        self._cards = {card.id: card for card in cards}

    async def all(self) -> tuple[ModelCard, ...]:
        return tuple(self._cards.values())

    async def find(self, model: ModelId) -> ModelCard:
        """Raises ModelNotFound."""
        if model not in self._cards:
            raise ModelNotFound(str(model))
        return self._cards[model]


class FakeEngine:
    """Says "ok". Dies when `alive` is set to False; closes once `may_close` is set."""

    markup = Markup()
    stats = EngineStats()
    slots = 1_000

    def __init__(self, card: ModelCard, footprint: int, clock: Clock) -> None:
        self.card = card
        self.footprint = footprint
        self.heartbeat = clock()
        self.alive = True
        self.closes = 0
        self.closed = False
        self.may_close = asyncio.Event()
        self.may_close.set()

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        yield PromptProgress(1, 1)
        yield Piece("ok")
        yield End("stop")

    async def close(self) -> None:
        self.closes += 1
        self.alive = False
        await self.may_close.wait()
        self.closed = True


class FakeLoader:
    """Loads at once.

    footprints: what engines turn out to need, where that is not what their cards say.
    errors: what loading a model raises, for as long as it stands there.
    """

    def __init__(self, clock: Clock, footprints: Mapping[ModelId, int] | None = None) -> None:
        self.errors: dict[ModelId, Exception] = {}
        self.loads: list[ModelId] = []
        self.engines: list[FakeEngine] = []
        self._clock = clock
        self._footprints = footprints or {}

    async def load(self, card: ModelCard) -> FakeEngine:
        """Raises what `errors` says."""
        self.loads.append(card.id)
        await asyncio.sleep(0)
        if card.id in self.errors:
            raise self.errors[card.id]
        return self._make(card)

    @property
    def bytes_held(self) -> int:
        """What the engines hold that have not given their memory back."""
        return sum(engine.footprint for engine in self.engines if not engine.closed)

    def _make(self, card: ModelCard) -> FakeEngine:
        engine = FakeEngine(card, self._footprints.get(card.id, card.weight_bytes), self._clock)
        self.engines.append(engine)
        return engine


class StuckLoader(FakeLoader):
    """Loads hang until `finish` or `fail` is called. Engines close once they are let go, if
    `slow_to_close`."""

    def __init__(
        self,
        clock: Clock,
        footprints: Mapping[ModelId, int] | None = None,
        *,
        slow_to_close: bool = False,
    ) -> None:
        super().__init__(clock, footprints)
        self._slow_to_close = slow_to_close
        self._pending: list[tuple[ModelCard, asyncio.Future[FakeEngine]]] = []

    async def load(self, card: ModelCard) -> FakeEngine:
        """Raises what `fail` is given."""
        self.loads.append(card.id)
        outcome: asyncio.Future[FakeEngine] = asyncio.get_running_loop().create_future()
        self._pending.append((card, outcome))
        try:
            return await outcome
        finally:
            self._pending.remove((card, outcome))

    @property
    def loading(self) -> list[ModelId]:
        """The loads that were begun and neither finished nor failed."""
        return [card.id for card, outcome in self._pending if not outcome.done()]

    @property
    def bytes_held(self) -> int:
        """As of FakeLoader, with the loads under way."""
        loading = (card.weight_bytes for card, outcome in self._pending if not outcome.done())
        return super().bytes_held + sum(loading)

    def finish(self, model: ModelId) -> FakeEngine:
        card, outcome = self._find(model)
        engine = self._make(card)
        if self._slow_to_close:
            engine.may_close.clear()
        outcome.set_result(engine)
        return engine

    def fail(self, model: ModelId, error: DomainError | None = None) -> None:
        outcome = self._find(model)[1]
        outcome.set_exception(error or EngineFailed(f"{model} failed to load"))

    def _find(self, model: ModelId) -> tuple[ModelCard, "asyncio.Future[FakeEngine]"]:
        (found,) = (load for load in self._pending if load[0].id == model and not load[1].done())
        return found
