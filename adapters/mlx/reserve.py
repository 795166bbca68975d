"""The KV reserve of one loaded model: who may join its batch, and who must leave it for a while.

Worker thread only. The decisions are those of domain/batching.py.
"""

from collections.abc import Callable, Iterable, Sequence

from adapters.mlx.batch import Batch
from adapters.mlx.request import Request
from domain.batching import Cost, admit, keep
from domain.memory import LoadPlan


class Reserve:
    """What a plan promises for the caches of all requests together."""

    def __init__(
        self,
        plan: LoadPlan,
        slots: int,
        guesses: int = 0,
        places: Callable[[int], int] = lambda rows: rows,
    ) -> None:
        """guesses: the most tokens that a step may look at beyond its own, for each request.
        places: for how many rows a batch of so many requests has room.
        """
        self._cost: Cost = lambda tokens, rows: plan.profile.kv(tokens, places(rows))
        self.room = plan.need.kv_cache
        self._slots = slots
        self._guesses = guesses

    def joining(self, batch: Batch, waiting: Sequence[Request]) -> int:
        """How many from the head of the queue fit, with what all are about to generate."""
        running = [request.soon for request in batch.requests]
        wanted = [request.soon for request in waiting]
        return admit(running, wanted, self._slots - len(batch), self._cost, self.room)

    def leaving(self, batch: Batch) -> list[Request]:
        """Those for whom the next token leaves no room: the youngest, the oldest of them first."""
        running = sorted(batch.requests, key=lambda request: request.submit.id)
        held = [self._reach(request) + 1 for request in running]
        return running[keep(held, self._cost, self.room) :]

    def used(self, batch: Batch) -> int:
        """Bytes that the requests hold. A batch is padded to its longest row."""
        held = [request.held for request in batch.requests]
        return self._cost(max(held), len(held)) if held else 0

    def spare(self, batch: Batch, waiting: Iterable[Request], used: int) -> int:
        """Bytes that nobody holds. used: those that the batch does; guesses take more for a while,
        and a request whose prompt is being scored has caches of its own.
        """
        if self._guesses:
            reach = [self._reach(request) for request in batch.requests]
            used = self._cost(max(reach), len(reach)) if reach else 0
        first = next((request for request in waiting if not request.preempted), None)
        if first and first.is_beginning:
            used += self._cost(first.held, 1)
        return self.room - used

    def _reach(self, request: Request) -> int:
        """Tokens, with guesses that the next step may look at."""
        return request.held + min(self._guesses, request.left)
