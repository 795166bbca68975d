"""The async side of one loaded model. No mlx here: the worker thread has it all."""

import asyncio
import time
from collections.abc import AsyncGenerator

from adapters.mlx.mailbox import Cancel, Close, Link, Submit
from application.ports import EngineStats
from application.readers import Readers
from application.standstill import Standstill
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError, ShuttingDown
from domain.outputs import EngineOutput, Markup


class MlxEngine:
    """Posts to the worker's mailbox, reads a queue per request."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._readers = Readers()
        self._standstill = Standstill()
        self._closed: DomainError | None = None

    @property
    def markup(self) -> Markup:
        return self._link.loaded.result().markup

    @property
    def footprint(self) -> int:
        return self._link.loaded.result().footprint

    @property
    def heartbeat(self) -> float:
        if self._link.idle:
            return time.monotonic()
        return self._standstill.last_heard(self._link.heartbeat)

    @property
    def alive(self) -> bool:
        return self._failure is None

    @property
    def slots(self) -> int:
        return self._link.options.max_batch_size

    @property
    def stats(self) -> EngineStats:
        return self._link.stats

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        with self._readers.join() as reader:
            self._link.mail.put(Submit(reader.request, command, reader.tell))
            try:
                # Only now: a worker that ends from here on finds the mail, and answers it.
                if self._failure:
                    raise self._failure
                async for output in reader:
                    yield output
            finally:
                self._link.mail.put(Cancel(reader.request))

    @property
    def _failure(self) -> DomainError | None:
        return self._link.failure or self._closed

    async def close(self, error: DomainError | None = None) -> None:
        self._standstill.stop()
        self._closed = self._closed or error or ShuttingDown()
        self._link.mail.put(Close(error))
        self._readers.fail(self._closed)  # a thread that hangs would never tell them
        await asyncio.wrap_future(self._link.closed)
