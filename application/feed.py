"""One writer, many readers: what is said from now on, to everyone who listens."""

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_MAX_UNREAD = 1000  # a reader that falls further behind is let go, so that it can't grow forever


class Feed(Generic[T]):
    """Lives on one event loop; saying something never waits."""

    def __init__(self) -> None:
        # Weak: a generator that is closed before it was begun never gets to its `finally`.
        self._readers: weakref.WeakSet[asyncio.Queue[T | None]] = weakref.WeakSet()
        self._told: list[Callable[[T], None]] = []
        self._closed = False

    def say(self, item: T) -> None:
        for tell in self._told:
            tell(item)
        for reader in tuple(self._readers):
            if reader.qsize() < _MAX_UNREAD:
                reader.put_nowait(item)
            else:
                self._readers.discard(reader)
                reader.put_nowait(None)

    def close(self) -> None:
        """Every reader comes to its end, and later ones at once."""
        self._closed = True
        for reader in self._readers:
            reader.put_nowait(None)
        self._readers.clear()

    def tell(self, listener: Callable[[T], None]) -> None:
        """Call it with what is said from now on, at once; it neither waits nor raises."""
        self._told.append(listener)

    def listen(self) -> AsyncGenerator[T, None]:
        """Hears what is said from this call on; ends when the feed closes, or the reader is too
        slow.
        """
        unread: asyncio.Queue[T | None] = asyncio.Queue()
        if self._closed:
            unread.put_nowait(None)
        self._readers.add(unread)
        return self._read(unread)

    async def _read(self, unread: "asyncio.Queue[T | None]") -> AsyncGenerator[T, None]:
        try:
            while (item := await unread.get()) is not None:
                yield item
        finally:
            self._readers.discard(unread)
