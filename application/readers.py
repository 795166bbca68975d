"""The requests of one engine, each with a queue of what is said to it."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from domain.errors import DomainError
from domain.outputs import End, EngineOutput


class Reader:
    """Hears what one request is told, up to its End. Raises the error that it is told."""

    def __init__(self, request: int) -> None:
        self.request = request
        self._outputs: asyncio.Queue[EngineOutput | DomainError] = asyncio.Queue()
        self._ended = False

    def tell(self, output: EngineOutput | DomainError) -> None:
        """On the event loop. Never waits."""
        self._outputs.put_nowait(output)

    def __aiter__(self) -> "Reader":
        return self

    async def __anext__(self) -> EngineOutput:
        if self._ended:
            raise StopAsyncIteration
        output = await self._outputs.get()
        if isinstance(output, DomainError):
            raise output
        self._ended = isinstance(output, End)
        return output


class Readers:
    """Lives on one event loop."""

    def __init__(self) -> None:
        self._ids = itertools.count()
        self._readers: dict[int, Reader] = {}

    @contextmanager
    def join(self) -> Iterator[Reader]:
        """A reader for one request, until the block is left."""
        reader = Reader(next(self._ids))
        self._readers[reader.request] = reader
        try:
            yield reader
        finally:
            del self._readers[reader.request]

    def tell(self, request: int, output: EngineOutput | DomainError) -> None:
        """Unless it has left meanwhile."""
        if request in self._readers:
            self._readers[request].tell(output)

    def fail(self, error: DomainError) -> None:
        """Tell everyone."""
        for reader in self._readers.values():
            reader.tell(error)
