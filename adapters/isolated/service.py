"""An engine at the service of the process that started this one."""

import asyncio
import time
from collections.abc import Awaitable
from contextlib import aclosing
from typing import Any

from adapters.isolated.channel import Channel
from adapters.isolated.messages import Cancel, Close, Said, Submit
from application.ports import Engine, EngineStats
from application.trace import kind
from domain.chat import ChatCommand, TextCommand
from domain.errors import DomainError, EngineFailed
from domain.outputs import EngineOutput, Piece

_BRISK = 0.1  # seconds between two looks at the stats, while there is work
_SETTLED = 0.02  # seconds from the end of a request until the stats show it


class Service:
    """Takes orders; sends what was said in one message for each turn of the loop, which is one for
    each step of the batch.
    """

    def __init__(self, engine: Engine, channel: Channel, pulse: float) -> None:
        self._engine = engine
        self._channel = channel
        self._pulse = pulse
        self._answers: dict[int, asyncio.Task[None]] = {}
        self._outputs: list[tuple[int, str | EngineOutput | DomainError]] = []
        self._told: tuple[EngineStats, float] = (EngineStats(), 0.0)
        self._loop = asyncio.get_running_loop()

    async def run(self, next_order: Awaitable[Any], patience: float) -> None:
        """Until it is told to close, or the server is gone: then it unloads within `patience`
        seconds, or not at all.
        """
        beating = asyncio.ensure_future(self._beat())
        while isinstance(order := await next_order, Submit | Cancel):
            self._take(order)
            next_order = self._channel.receive()
        error = order.error if isinstance(order, Close) else None
        closing = asyncio.ensure_future(self._engine.close(error))
        if order is not None:
            gone = asyncio.ensure_future(self._channel.receive())
            await asyncio.wait((closing, gone), return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait((closing,), timeout=patience)
        beating.cancel()

    def _take(self, order: Submit | Cancel) -> None:
        if isinstance(order, Submit):
            answer = self._loop.create_task(self._answer(order.id, order.command))
            self._answers[order.id] = answer
            answer.add_done_callback(lambda done: self._ended(order.id, done))
        elif order.id in self._answers:
            self._answers[order.id].cancel()

    async def _answer(self, request: int, command: ChatCommand | TextCommand) -> None:
        async with aclosing(self._engine.generate(command)) as outputs:
            async for output in outputs:
                bare = type(output) is Piece and output.score is None
                self._say(request, output.text if bare else output)  # type: ignore[union-attr]

    def _ended(self, request: int, answer: "asyncio.Task[None]") -> None:
        del self._answers[request]
        failure = None if answer.cancelled() else answer.exception()
        if isinstance(failure, DomainError):
            self._say(request, failure)
        elif failure:
            text = f"The engine failed on this request ({kind(failure)})."
            self._say(request, EngineFailed(text))
        self._loop.call_later(_SETTLED, self._flush)

    def _say(self, request: int, output: str | EngineOutput | DomainError) -> None:
        if not self._outputs:
            self._loop.call_soon(self._flush)
        self._outputs.append((request, output))

    def _flush(self) -> None:
        outputs, self._outputs = self._outputs, []
        now, stats = time.monotonic(), self._engine.stats
        silence = now - self._engine.heartbeat
        self._told = (stats, now)
        self._channel.send(Said(outputs, stats, silence, self._engine.alive))

    async def _beat(self) -> None:
        """A sign of life now and then, and news of the stats soon."""
        while True:
            stats, told = self._told
            due = time.monotonic() - told >= self._pulse
            if due or stats != self._engine.stats:
                self._flush()
            stats = self._engine.stats
            busy = self._answers or stats.running or stats.waiting
            await asyncio.sleep(min(_BRISK, self._pulse) if busy else self._pulse)
