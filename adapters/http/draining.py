"""How a server ends: nothing new, what is open finishes, then the port closes."""

import math
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from types import FrameType

import uvicorn

from adapters.http.config import LimitedConfig

Drain = Callable[[], Awaitable[None]]

_LAST_WORDS = 2  # seconds for the errors that drained requests are answered with
_BY_SIGNAL = 128  # the exit code of a program that a signal has ended, less the signal


class DrainingServer(uvicorn.Server):
    """The first SIGINT or SIGTERM drains, and the exit code is 0; a second one ends the program
    at once.

    The port stays open while it drains, so that probes see it and new requests are told; uvicorn
    would close it first, cancel what is still open after its time, and die of the signal.
    """

    def __init__(self, config: LimitedConfig, drain: Drain, grace: float) -> None:
        super().__init__(config)
        self._limited = config
        self._drain = drain
        self._grace = grace

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
            # container. Engine processes end by themselves, with our end of their sockets.
            os._exit(_BY_SIGNAL + signal.Signals(sig))
        self.should_exit = True
