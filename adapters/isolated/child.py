"""The program of an engine process: one model, for the server that started it.

It ends with the server's end of the socket, whatever becomes of the server.
"""

import asyncio
import faulthandler
import logging
import os
import signal
import socket
import sys
from typing import Any

from adapters.isolated.channel import Channel
from adapters.isolated.messages import Load, Loaded, Logged, NotLoaded, Profile, Profiled
from adapters.isolated.service import Service
from domain.errors import DomainError

_UNLOADING_PATIENCE = 8.0  # seconds, when the server is gone


class LogForwarder(logging.Handler):
    """Sends lines to the server, whose log they belong in. Any thread may log."""

    def __init__(self, channel: Channel, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._channel = channel
        self._loop = loop

    def emit(self, record: logging.LogRecord) -> None:
        line = Logged(record.name, record.levelno, self.format(record))
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._channel.send, line)


async def run(end: socket.socket) -> None:
    """Load, serve, unload; or look at a model's files."""
    channel = await Channel.over(end)
    order = await channel.receive()
    if not isinstance(order, Load | Profile):
        return
    _forward_logs(channel, order.log_level)
    next_order = asyncio.ensure_future(channel.receive())
    match order:
        case Load():
            await _serve(channel, order, next_order)
        case Profile():
            await _look(channel, order, next_order)


async def _look(channel: Channel, order: Profile, gone: "asyncio.Future[Any]") -> None:
    looking = asyncio.ensure_future(order.make_loader().profile(order.card, order.kv_bits))
    await asyncio.wait((looking, gone), return_when=asyncio.FIRST_COMPLETED)
    if looking.done():
        try:
            channel.send(Profiled(looking.result()))
        except DomainError as error:
            channel.send(NotLoaded(error))
        await channel.flush()


async def _serve(channel: Channel, load: Load, next_order: "asyncio.Future[Any]") -> None:
    loading = asyncio.ensure_future(load.make_loader().load(load.card, load.plan))
    await asyncio.wait((loading, next_order), return_when=asyncio.FIRST_COMPLETED)
    if not loading.done():
        return  # the server is gone, or has given up
    try:
        engine = loading.result()
    except DomainError as error:
        channel.send(NotLoaded(error))
    else:
        channel.send(Loaded(engine.markup, engine.footprint, engine.slots))
        await Service(engine, channel, load.pulse).run(next_order, _UNLOADING_PATIENCE)
    await channel.flush()


def _forward_logs(channel: Channel, level: int) -> None:
    ours = logging.getLogger("portico")
    ours.setLevel(level)
    ours.addHandler(LogForwarder(channel, asyncio.get_running_loop()))
    ours.propagate = False


def main() -> None:
    faulthandler.enable()
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)  # service managers signal every process of a group
    with socket.socket(fileno=int(sys.argv[1])) as end:
        asyncio.run(run(end))
    # Threads of MLX that still wait would abort an interpreter that ends in good order.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
