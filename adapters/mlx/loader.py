"""Starts a worker thread for a model and waits until it is ready. No mlx here."""

import asyncio
import atexit
import time

from adapters.mlx.engine import MlxEngine
from adapters.mlx.mailbox import Close, Halt, Link, MlxOptions
from adapters.mlx.prober import Prober
from adapters.mlx.threads import WorkerThreads
from domain.memory import LoadPlan, MemoryProfile
from domain.models import ModelCard

_PARKING = 0.02  # seconds, and more, from the end of a thread's work until it waits again
_EXIT_PATIENCE = 5.0  # seconds for a thread amid its step when the interpreter ends


class MlxEngineLoader:
    """Loads models with mlx-lm, each on a thread of its own."""

    def __init__(self, options: MlxOptions) -> None:
        self._options = options
        self._links: list[Link] = []
        self._prober = Prober(options)
        self._threads = WorkerThreads()
        atexit.register(self._halt_threads)

    @property
    def memory(self) -> int:
        """Asks MLX's core, which is quick to import. Without it nothing can be loaded, and a load
        says why.
        """
        try:
            from adapters.mlx.gpu import safe_memory
        except ImportError:
            return 0
        return safe_memory()

    async def profile(self, card: ModelCard, kv_bits: int | None) -> MemoryProfile:
        """Raises InvalidRequest when the cache can't be kept at `kv_bits`, else EngineFailed."""
        return await self._prober.profile(card, kv_bits)

    async def load(self, card: ModelCard, plan: LoadPlan) -> MlxEngine:
        """Raises EngineFailed, with the reason."""
        link = Link(card, plan, self._options, asyncio.get_running_loop())
        self._threads.start(link)
        self._links = [link for link in self._links if not link.closed.done()] + [link]
        loaded = asyncio.wrap_future(link.loaded)
        try:
            # The thread can't be interrupted, and still reports to the future when it has loaded.
            await asyncio.shield(loaded)
        except asyncio.CancelledError:
            loaded.add_done_callback(lambda late: late.exception())  # nobody asks for it any more
            link.mail.put(Close())
            await asyncio.shield(asyncio.wrap_future(link.closed))  # no thread can be ended
            raise
        return MlxEngine(link)

    def _halt_threads(self) -> None:
        """At exit a waiting thread is harmless; one that ends, or works, aborts the process."""
        self._links = [link for link in self._links if not link.closed.done()]
        for link in self._links:
            link.mail.put(Halt())
        deadline = time.monotonic() + _EXIT_PATIENCE
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(_PARKING)

    @property
    def _busy(self) -> bool:
        return self._prober.busy or any(link.busy for link in self._links)
