"""Threads for the workers of models. No mlx here."""

import queue
import threading
from collections import deque

from adapters.mlx.mailbox import Link
from adapters.mlx.prober import mlx_missing

# llguidance follows chains of rules recursively, and a stack that is too small ends the process.
_STACK_BYTES = 512 * 2**20


class WorkerThreads:
    """A thread for each model in memory. They outlive their models and take the next ones: MLX
    never gives back what it makes for a thread (on the CPU that is another thread), and one that
    ends at the wrong moment aborts the process.
    """

    def __init__(self) -> None:
        self._idle: deque[queue.SimpleQueue[Link]] = deque()

    def start(self, link: Link) -> None:
        """The whole life of a worker, on a thread that has nothing to do, or a new one."""
        try:
            links = self._idle.pop()
        except IndexError:
            links = queue.SimpleQueue()
            threading.stack_size(_STACK_BYTES)
            threading.Thread(target=self._run, args=(links,), daemon=True).start()
            threading.stack_size(0)
        links.put(link)

    def _run(self, links: "queue.SimpleQueue[Link]") -> None:
        thread = threading.current_thread()
        while True:
            thread.name = "mlx"
            link = links.get()
            thread.name = f"mlx {link.card.id}"
            _work(link)
            del link
            self._idle.append(links)


def _work(link: Link) -> None:
    try:
        # Inside a function: mlx-lm takes seconds, which a server that already listens spends on
        # the thread that needs it.
        from adapters.mlx.worker import Worker
    except ImportError as error:
        link.loaded.set_exception(mlx_missing(error))
        link.closed.set_result(None)
        return
    Worker(link).run()
