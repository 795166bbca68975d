"""The server's side of an engine that runs in a process of its own."""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator

from adapters.isolated.messages import Cancel, Close, Loaded, Logged, Said, Submit
from adapters.isolated.process import EngineProcess
from application.ports import EngineStats
from application.readers import Readers
from application.standstill import Standstill
from application.trace import wordless
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError, EngineFailed, ShuttingDown
from domain.models import ModelCard
from domain.outputs import EngineOutput, Markup, Piece

logger = logging.getLogger("portico.engine")

_CLOSING_PATIENCE = 8.0  # seconds to unload, and to write to disk what is kept of prompts
_DYING_PATIENCE = 30.0  # seconds until a killed process has given its memory back


class IsolatedEngine:
    """Sends orders, reads a queue per request; the end of the process fails them all.

    hang_timeout: seconds of silence after which it is given no time to unload.
    """

    def __init__(
        self, card: ModelCard, process: EngineProcess, loaded: Loaded, hang_timeout: float
    ) -> None:
        self._card = card
        self._process = process
        self._loaded = loaded
        self._hang_timeout = hang_timeout
        self._stats = EngineStats()
        self._heartbeat = time.monotonic()
        self._standstill = Standstill()
        self._readers = Readers()
        self._failure: DomainError | None = None
        self._closing: asyncio.Task[None] | None = None
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        self._listening.add_done_callback(self._deaf)

    @property
    def markup(self) -> Markup:
        return self._loaded.markup

    @property
    def footprint(self) -> int:
        return self._loaded.footprint

    @property
    def heartbeat(self) -> float:
        return self._standstill.last_heard(self._heartbeat)

    @property
    def alive(self) -> bool:
        return self._failure is None

    @property
    def slots(self) -> int:
        return self._loaded.slots

    @property
    def stats(self) -> EngineStats:
        """As of the last word from the process."""
        return self._stats

    @property
    def pid(self) -> int:
        return self._process.pid

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        if self._failure:
            raise self._failure
        with self._readers.join() as reader:
            self._process.channel.send(Submit(reader.request, command))
            try:
                async for output in reader:
                    yield output
            finally:
                self._process.channel.send(Cancel(reader.request))

    async def close(self, error: DomainError | None = None) -> None:
        self._fail(error or ShuttingDown())
        if self._closing is None:
            self._closing = asyncio.get_running_loop().create_task(self._close(error))
        await asyncio.shield(self._closing)

    async def _close(self, error: DomainError | None) -> None:
        self._process.channel.send(Close(error))
        hung = time.monotonic() - self.heartbeat >= self._hang_timeout
        self._standstill.stop()
        if not await self._process.ended(0.0 if hung else _CLOSING_PATIENCE):
            logger.warning("process %d of %s is killed: it hangs", self.pid, self._card.id)
            self._process.kill()
            await self._process.ended(_DYING_PATIENCE)
        self._process.channel.close()
        await self._listening

    async def _listen(self) -> None:
        while (report := await self._process.channel.receive()) is not None:
            match report:
                case Said():
                    self._hear(report)
                case Logged() as lines:
                    lines.relay()
        if self.alive:
            fate = await self._process.fate()
            reason = f"The engine process of `{self._card.id}` ended: {fate}."
            logger.error("%s", reason)
            self._fail(EngineFailed(reason))

    def _deaf(self, listening: "asyncio.Task[None]") -> None:
        """Nobody waits for a word that nobody hears."""
        if self.alive:
            if not listening.cancelled() and (error := listening.exception()):
                logger.error("%s can't be heard", self._card.id, exc_info=wordless(error))
            self._fail(EngineFailed(f"The engine process of `{self._card.id}` is not heard."))

    def _hear(self, said: Said) -> None:
        self._stats = said.stats
        self._heartbeat = time.monotonic() - said.silence
        if not said.alive:
            self._failure = self._failure or EngineFailed(f"The engine of `{self._card.id}` broke.")
        for request, output in said.outputs:
            self._readers.tell(request, Piece(output) if isinstance(output, str) else output)

    def _fail(self, failure: DomainError) -> None:
        self._failure = self._failure or failure
        self._readers.fail(failure)
        self._stats = EngineStats()
