"""The async side of one loaded model. No mlx here: the worker thread has it all."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator

from adapters.mlx.mailbox import Cancel, Close, Link, Submit
from application.ports import EngineStats
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError
from domain.outputs import End, EngineOutput, Markup


class MlxEngine:
    """Posts to the worker's mailbox, reads a queue per request."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._ids = itertools.count()

    @property
    def markup(self) -> Markup:
        return self._link.loaded.result().markup

    @property
    def footprint(self) -> int:
        return self._link.loaded.result().footprint

    @property
    def heartbeat(self) -> float:
        busy = self.stats.running or self.stats.waiting
        return self._link.heartbeat if busy else time.monotonic()

    @property
    def alive(self) -> bool:
        return self._link.failure is None

    @property
    def slots(self) -> int:
        return self._link.options.max_batch_size

    @property
    def stats(self) -> EngineStats:
        return self._link.stats

    async def generate(
        self, command: ChatCommand | TextCommand
    ) -> AsyncGenerator[EngineOutput, None]:
        outputs: asyncio.Queue[EngineOutput | DomainError] = asyncio.Queue()
        request = next(self._ids)
        self._link.mail.put(Submit(request, command, outputs.put_nowait))
        # Only now: a worker that ends from here on finds the mail, and answers it.
        if self._link.failure:
            raise self._link.failure
        try:
            while True:
                output = await outputs.get()
                if isinstance(output, DomainError):
                    raise output
                yield output
                if isinstance(output, End):
                    return
        finally:
            self._link.mail.put(Cancel(request))

    async def close(self, error: DomainError | None = None) -> None:
        self._link.mail.put(Close(error))
        await asyncio.wrap_future(self._link.closed)
