"""Clients of a model pool, one task each."""

import asyncio

from application.model_pool import ModelPool
from application.ports import Engine
from domain.errors import DomainError
from domain.models import ModelId

_TURNS = 25  # more turns of the loop than any chain of callbacks in the pool takes


async def settle() -> None:
    """Let everything happen that can happen by itself."""
    for _ in range(_TURNS):
        await asyncio.sleep(0)


class Client:
    """Asks for a lease at once, and keeps it until it is told to leave."""

    def __init__(
        self, pool: ModelPool, model: ModelId, loop: asyncio.AbstractEventLoop | None = None
    ) -> None:
        self.model = model
        self.engine: Engine | None = None  # the one it holds, or held
        self.error: DomainError | None = None
        self._may_leave = asyncio.Event()
        loop = loop or asyncio.get_running_loop()
        self._task = loop.create_task(self._run(pool))

    async def _run(self, pool: ModelPool) -> None:
        try:
            await self._use(pool)
        except DomainError as error:
            self.error = error

    async def _use(self, pool: ModelPool) -> None:
        async with pool.lease(self.model) as engine:
            self.engine = engine
            await self._may_leave.wait()

    @property
    def was_answered(self) -> bool:
        return self._task.done() and not self._task.cancelled()

    @property
    def waits(self) -> bool:
        return self.engine is None and not self._task.done()

    @property
    def holds(self) -> bool:
        return self.engine is not None and not self._task.done()

    def leave(self) -> None:
        """Give the lease back, in good order."""
        self._may_leave.set()

    def vanish(self) -> None:
        """Break off, wherever it is."""
        self._task.cancel()


class Preloader(Client):
    """An operator who has a model loaded if it fits now, and goes."""

    async def _use(self, pool: ModelPool) -> None:
        await pool.load(self.model, wait=False)
