"""How a server ends: nothing new, what is open finishes, then the port closes."""

import asyncio
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType
from typing import Any

import uvicorn

from adapters.http.config import LimitedConfig

logger = logging.getLogger("portico.http")

Drain = Callable[[], Awaitable[None]]
Abandon = Callable[[], None]

_LAST_WORDS = 2  # seconds for the errors that drained requests are answered with
_BACKLOG = 2048  # connections that the system keeps for us; uvicorn's default
_OUT_OF_FILES = ("socket.accept() out of system resource", "_start_serving")
_BETWEEN_COMPLAINTS = 60.0  # seconds
_BY_SIGNAL = 128  # the exit code of a program that a signal has ended, less the signal


class DrainingServer(uvicorn.Server):
    """The first SIGINT or SIGTERM drains, and the exit code is 0; a second one ends the program
    at once, after a call to `abandon`.

    The port stays open while it drains, so that probes see it and new requests are told; uvicorn
    would close it first, cancel what is still open after its time, and die of the signal.
    """

    def __init__(self, config: LimitedConfig, drain: Drain, abandon: Abandon, grace: float) -> None:
        super().__init__(config)
        self._limited = config
        self._drain = drain
        self._abandon = abandon
        self._grace = grace
        self._silent_until = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._note)
        await super().startup(sockets)
        for listener in (listener for server in self.servers for listener in server.sockets):
            with socket.fromfd(listener.fileno(), listener.family, listener.type) as same:
                same.listen(_BACKLOG)

    def _note(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Out of files, asyncio reports every connection that it can't take, tries again as often
        a second later, and reports that as well if the server has ended meanwhile.
        """
        if not any(words in context["message"] for words in _OUT_OF_FILES):
            loop.default_exception_handler(context)
        elif loop.time() >= self._silent_until:
            self._silent_until = loop.time() + _BETWEEN_COMPLAINTS
            logger.error("connections can't be taken: %s", context.get("exception"))

    def _log_started_message(self, listeners: Sequence[socket.SocketType]) -> None:
        self.config.ssl = self._limited.encrypted  # it says `https`; the sockets are made by now
        super()._log_started_message(listeners)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        deadline = time.monotonic() + self._grace
        await self._drain()
        # What holds no lease any more may still be on its way to a slow reader.
        left = max(deadline - time.monotonic(), 0.0)
        self.config.timeout_graceful_shutdown = math.ceil(left) + _LAST_WORDS
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            # Not by the signal's default, which is to do nothing for the first process of a
            # container.
            self._abandon()
            os._exit(_BY_SIGNAL + signal.Signals(sig))
        self.should_exit = True
