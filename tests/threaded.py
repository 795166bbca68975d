"""A uvicorn server in a thread of the test process."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class ThreadedServer(uvicorn.Server):
    """Tells when it listens, and on which loop."""

    loop: asyncio.AbstractEventLoop

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._listens = threading.Event()

    async def startup(self, sockets: object = None) -> None:
        await super().startup()
        self.loop = asyncio.get_running_loop()
        self._listens.set()

    @contextmanager
    def running(self) -> Iterator[int]:
        """Its port. It runs until the block is left."""
        thread = threading.Thread(target=self.run, daemon=True)
        thread.start()
        assert self._listens.wait(20)
        try:
            yield self.servers[0].sockets[0].getsockname()[1]
        finally:
            self.should_exit = True
            thread.join(20)
            assert not thread.is_alive()
