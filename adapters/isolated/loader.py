"""Loads models in processes of their own."""

import logging
from collections.abc import Callable

from adapters.isolated.engine import IsolatedEngine
from adapters.isolated.messages import Load, Loaded, Logged, MakeLoader, NotLoaded
from adapters.isolated.process import EngineProcess
from application.ports import Engine, EngineLoader
from domain.errors import EngineFailed
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard, ModelId

logger = logging.getLogger("portico.engine")

_PULSE = 1.0  # seconds between two signs of life
_PULSE_SHARE = 0.2  # and at most this share of the time after which an engine counts as hung
_LAST_BREATH = 0.5  # seconds from the end of a channel to the end of its process


class IsolatingLoader:
    """The models that are `chosen` get a process each; the others load as `inner` loads them.

    make_loader: what loads a model in its process. hang_timeout: seconds of silence after which a
    process is given no time to unload.
    """

    def __init__(
        self,
        inner: EngineLoader,
        make_loader: MakeLoader,
        chosen: Callable[[ModelId], bool],
        hang_timeout: float = 30.0,
    ) -> None:
        self._inner = inner
        self._make_loader = make_loader
        self._chosen = chosen
        self._hang_timeout = hang_timeout

    @property
    def memory(self) -> int:
        return self._inner.memory

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Reads no weights, and so needs no process. Raises what `inner` does."""
        return await self._inner.profile(card, kv_bits)

    async def load(self, card: ModelCard, plan: LoadPlan) -> Engine:
        """Raises EngineFailed, with the reason, and what `inner` would raise."""
        if not self._chosen(card.id):
            return await self._inner.load(card, plan)
        try:
            process = await EngineProcess.start(str(card.id))
        except OSError as error:  # no more files, processes or memory
            reason = f"No process for the engine of `{card.id}` can be started: {error}"
            raise EngineFailed(reason) from error
        level = logging.getLogger("portico").getEffectiveLevel()
        pulse = min(_PULSE, self._hang_timeout * _PULSE_SHARE)
        process.channel.send(Load(self._make_loader, card, plan, pulse, level))
        engine = None
        try:
            loaded = await _loaded(card, process)
            engine = IsolatedEngine(card, process, loaded, self._hang_timeout)
            logger.info("%s runs in process %d", card.id, process.pid)
            return engine
        finally:
            if engine is None:
                process.kill()
                process.channel.close()
                await process.ended(_LAST_BREATH)


async def _loaded(card: ModelCard, process: EngineProcess) -> Loaded:
    while True:
        match await process.channel.receive():
            case Loaded() as loaded:
                return loaded
            case NotLoaded(error):
                raise error
            case Logged() as lines:
                lines.relay()
            case _:
                await process.ended(_LAST_BREATH)
                raise EngineFailed(
                    f"The engine process of `{card.id}` ended while it loaded ({process.fate})."
                )
