"""Stopping blocking work from outside: sleepers wake up, connections are cut."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx2


class Halted(Exception):
    """The work was told to stop."""


class Halt:
    """One for each piece of work. Safe to use from any thread; a stop is for good."""

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()

    def stop(self) -> None:
        self._stopped.set()
        with self._lock:
            for connection in self._sockets:
                _cut(connection)

    def check(self) -> None:
        """Raises Halted."""
        if self._stopped.is_set():
            raise Halted

    def sleep(self, seconds: float) -> None:
        """Raises Halted."""
        if self._stopped.wait(seconds):
            raise Halted

    @contextmanager
    def cutting(self, response: httpx2.Response) -> Iterator[None]:
        """While it is read, `stop` ends the reading, even of a connection that says nothing."""
        stream = response.extensions.get("network_stream")
        connection = stream.get_extra_info("socket") if stream else None
        if not isinstance(connection, socket.socket):
            yield
            return
        with self._lock:
            self._sockets.add(connection)
        try:
            self.check()  # stopped before it was known here
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)


def _cut(connection: socket.socket) -> None:
    # The plain socket's method: SSLSocket.shutdown pulls its TLS state away from the reader.
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
