"""Loads models in processes of their own."""

import logging
from collections.abc import Callable

from adapters.isolated.engine import IsolatedEngine
from adapters.isolated.messages import Load, Loaded, MakeLoader
from adapters.isolated.opening import first_report, started
from adapters.isolated.profiles import Profiles
from application.ports import Engine, EngineLoader
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard, ModelId

logger = logging.getLogger("portico.engine")

_PULSE = 1.0  # seconds between two signs of life
_PULSE_SHARE = 0.2  # and at most this share of the time after which an engine counts as hung


class IsolatingLoader:
    """The models that are `chosen` get a process each; the others load as `inner` loads them.

    make_loader: what loads a model in its process. hang_timeout: seconds of silence after which a
    process is given no time to unload. load_timeout: seconds for the files of a model to be looked
    at; that a load ends is up to the pool, which cancels it.
    """

    def __init__(
        self,
        inner: EngineLoader,
        make_loader: MakeLoader,
        chosen: Callable[[ModelId], bool],
        hang_timeout: float = 30.0,
        load_timeout: float = 300.0,
    ) -> None:
        self._inner = inner
        self._make_loader = make_loader
        self._chosen = chosen
        self._hang_timeout = hang_timeout
        self._profiles = Profiles(make_loader, load_timeout)

    @property
    def memory(self) -> int:
        return self._inner.memory

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Raises what `inner` does, and EngineFailed when the process dies of the files."""
        if not self._chosen(card.id):
            return await self._inner.profile(card, kv_bits)
        return await self._profiles.ask(card, kv_bits)

    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:
        """Raises EngineFailed, with the reason, and what `inner` would raise."""
        if not self._chosen(card.id):
            return await self._inner.load(card, plan)
        process = await started(card)
        level = logging.getLogger("portico").getEffectiveLevel()
        pulse = min(_PULSE, self._hang_timeout * _PULSE_SHARE)
        process.channel.send(Load(self._make_loader, card, plan, pulse, level))
        engine = None
        try:
            loaded = await first_report(card, process, Loaded, "while it loaded")
            engine = IsolatedEngine(card, process, loaded, self._hang_timeout)
            logger.info("%s runs in process %d", card.id, process.pid)
            return engine
        finally:
            if engine is None:
                await process.end()
