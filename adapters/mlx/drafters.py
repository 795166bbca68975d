"""Guesses of a draft model: each request has its drafter. Worker thread only."""

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from adapters.mlx.drafter import Drafter
from adapters.mlx.faults import attempt
from adapters.mlx.model import DraftModel
from adapters.mlx.pace import SliceSize
from adapters.mlx.prefill import PrefillOptions
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from domain.speculation import Rate

_NEAR = 32  # tokens that the draft may read within a drafted step
_FIRST_SLICE = 64  # tokens, before anything was measured


class Drafters:
    """A `Guesser`. wait: until the step under way is computed."""

    steady = True

    def __init__(
        self,
        draft: DraftModel,
        options: PrefillOptions,
        kept: PrefixCache,
        wait: Callable[[], None],
    ) -> None:
        self._draft = draft
        self._kept = kept
        self._wait = wait
        self._slice = SliceSize(_FIRST_SLICE, options.step_size, options.least)
        self._reading = Rate()
        self._by_request: dict[Request, Drafter] = {}

    def can_guess(self, request: Request) -> bool:
        return request.held + self._draft.tokens <= self._draft.context_length

    def delay(self, requests: Sequence[Request]) -> float:
        return self._reading.per_token * sum(self._of(request).behind for request in requests)

    def ready(self, requests: Sequence[Request]) -> bool:
        return all(self._of(request).behind <= _NEAR for request in requests)

    def guess(self, requests: Sequence[Request], most: int) -> mx.array:
        count = min(self._draft.tokens, most)
        return mx.stack([self._of(request).guess(count) for request in requests])

    def judge(self, guessed: int, right: Mapping[Request, int]) -> None:
        for request, count in right.items():
            self._of(request).keep(count)

    def read_on(self, requests: Sequence[Request], seconds: float) -> bool:
        drafter = max(map(self._of, requests), key=lambda drafter: drafter.behind)
        if drafter.behind <= _NEAR:
            return False
        self._wait()
        begun = time.perf_counter()
        count = drafter.read(self._slice.tokens)
        spent = time.perf_counter() - begun
        self._slice.measured(count, spent, seconds)
        self._reading = self._reading.add(spent, count)
        return True

    def forget(self, request: Request) -> None:
        drafter = self._by_request.pop(request, None)
        if drafter:
            attempt(partial(self._keep, drafter))

    def _of(self, request: Request) -> Drafter:
        if request not in self._by_request:
            self._by_request[request] = self._begun(request)
        return self._by_request[request]

    def _begun(self, request: Request) -> Drafter:
        """With what the draft has read of the same conversation before."""
        find = partial(self._kept.find, _scope(request), request.known, on_disk=False)
        found = attempt(find)
        if isinstance(found, tuple):
            return Drafter(self._draft, request, *found)
        return Drafter(self._draft, request, 0, make_prompt_cache(self._draft.network))

    def _keep(self, drafter: Drafter) -> None:
        tokens, caches = drafter.state
        if len(tokens) >= _NEAR:
            self._kept.keep(_scope(drafter.request), tokens, caches, on_disk=False)


def _scope(request: Request) -> str:
    """The draft's states lie beside the target's, and serve only the draft."""
    return f"{request.scope}\0draft"
