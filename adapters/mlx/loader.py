"""Starts a worker thread for a model and waits until it is ready. No mlx here."""

import asyncio
import atexit
import threading
import time

from adapters.mlx.engine import MlxEngine
from adapters.mlx.mailbox import Halt, Link, MlxOptions
from domain.errors import EngineFailed
from domain.models import ModelCard

# llguidance follows chains of rules recursively, and a stack that is too small ends the process.
_STACK_BYTES = 512 * 2**20

_EXIT_PATIENCE = 5.0  # seconds for a thread amid its step when the interpreter ends


class MlxEngineLoader:
    """Loads models with mlx-lm, each on a thread of its own."""

    def __init__(self, options: MlxOptions) -> None:
        self._options = options
        self._links: list[Link] = []
        atexit.register(self._halt_threads)

    async def load(self, card: ModelCard) -> MlxEngine:
        """Raises EngineFailed, with the reason."""
        link = Link(card, self._options, asyncio.get_running_loop())
        threading.stack_size(_STACK_BYTES)
        threading.Thread(target=_work, args=(link,), name=f"mlx {card.id}", daemon=True).start()
        threading.stack_size(0)
        self._links = [link for link in self._links if not link.closed.done()] + [link]
        await asyncio.wrap_future(link.loaded)
        return MlxEngine(link)

    def _halt_threads(self) -> None:
        """At exit a waiting thread is harmless; one that ends, or works, aborts the process."""
        for link in self._links:
            link.mail.put(Halt())
        deadline = time.monotonic() + _EXIT_PATIENCE
        while any(link.busy for link in self._links) and time.monotonic() < deadline:
            time.sleep(0.005)


def _work(link: Link) -> None:
    try:
        # The one import inside a function: mlx-lm takes seconds, which a server that already
        # listens spends on the thread that needs it.
        from adapters.mlx.worker import Worker
    except ImportError as error:
        link.loaded.set_exception(
            EngineFailed(
                f"MLX can't be imported ({error}). On Linux install it with an extra: "
                "`portico-mlx[cpu]` or `portico-mlx[cuda]`."
            )
        )
        return
    Worker(link).run()
