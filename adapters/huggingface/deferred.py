"""A source of models that is made when it is first asked."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from application.ports import ModelSource
from domain.models import FoundModel, ModelId, PullProgress


class DeferredSource:
    """Most servers never ask the hub, whose client library is among the slowest things to import.

    make: called once, on a thread of its own, so that it may import what it needs.
    """

    def __init__(self, make: Callable[[], ModelSource]) -> None:
        self._make = make
        self._made: ModelSource | None = None
        self._making = asyncio.Lock()

    async def search(self, text: str, limit: int) -> tuple[FoundModel, ...]:
        source = await self._source()
        return await source.search(text, limit)

    async def pull(
        self, model: ModelId, revision: str | None
    ) -> AsyncGenerator[PullProgress, None]:
        source = await self._source()
        async with aclosing(source.pull(model, revision)) as progresses:
            async for progress in progresses:
                yield progress

    async def _source(self) -> ModelSource:
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
        return self._made
