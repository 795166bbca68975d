"""Messages over a socket pair between a server and a process that it started.

Pickled, as both ends are our own program, and nobody else can reach the socket.
"""

import asyncio
import pickle
import socket
from typing import Any

_LENGTH = 8  # bytes, before each message


class Channel:
    """One end. Lives on one event loop."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, end: socket.socket) -> "Channel":
        return cls(*await asyncio.open_unix_connection(sock=end))

    def send(self, message: object) -> None:
        """Never waits. What is sent to a process that has ended is dropped."""
        if not self._writer.is_closing():
            data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
            self._writer.write(len(data).to_bytes(_LENGTH, "big") + data)

    async def receive(self) -> Any:
        """The next message; None when the other end is gone."""
        try:
            length = int.from_bytes(await self._reader.readexactly(_LENGTH), "big")
            return pickle.loads(await self._reader.readexactly(length))  # noqa: S301 - our own
        except (asyncio.IncompleteReadError, OSError):
            return None

    async def flush(self) -> None:
        """Until all is sent, or the other end is gone."""
        try:
            await self._writer.drain()
            self._writer.close()
            await self._writer.wait_closed()
        except OSError:
            pass

    def close(self) -> None:
        self._writer.close()
