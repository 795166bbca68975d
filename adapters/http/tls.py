"""TLS that is agreed on in time, and counted meanwhile.

uvicorn 0.54 hears of a connection only when it is, and asyncio gives a client a minute for it.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import cast

logger = logging.getLogger("portico.http")

MakeProtocol = Callable[[], asyncio.Protocol]


class Handshake(asyncio.Protocol):
    """A connection until TLS is agreed on; then it is for what `make` makes.

    opening: where it is while it is one. handshake_timeout, shutdown_timeout: seconds.
    """

    def __init__(
        self,
        make: MakeProtocol,
        context: ssl.SSLContext,
        opening: set[asyncio.Protocol],
        handshake_timeout: float,
        shutdown_timeout: float,
    ) -> None:
        self._make = make
        self._context = context
        self._opening = opening
        self._handshake_timeout = handshake_timeout
        self._shutdown_timeout = shutdown_timeout
        self._early: list[bytes] = []  # what came in the moment of the agreement
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opening.add(self)
        agreeing = self._agree(cast(asyncio.Transport, transport))
        self._task = asyncio.get_running_loop().create_task(agreeing)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)

    async def _agree(self, plain: asyncio.Transport) -> None:
        try:
            agreed = await asyncio.get_running_loop().start_tls(
                plain,
                self,
                self._context,
                server_side=True,
                ssl_handshake_timeout=self._handshake_timeout,
                ssl_shutdown_timeout=self._shutdown_timeout,
            )
        except OSError as error:  # ssl.SSLError is one, and so is a deadline that was missed
            logger.debug("no TLS: %s", error)
            return
        finally:
            self._opening.discard(self)
        if agreed and not agreed.is_closing():
            self._hand_over(agreed)

    def _hand_over(self, agreed: asyncio.Transport) -> None:
        connection = self._make()
        agreed.set_protocol(connection)
        connection.connection_made(agreed)
        for data in self._early:
            connection.data_received(data)
