"""Drafted steps: a small model guesses the next tokens of a few rows, and one pass of the large one
finds what it says at all of these places. Worker thread only.

Every token is the target's own: drawn from its logits with the row's own draws. A guess only
decides whether the pass that gave it was of use, so the answer is the one without a draft.
"""

import time
from functools import partial

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from adapters.mlx.decode import DecodeBatch, Decoded
from adapters.mlx.drafter import Drafter
from adapters.mlx.faults import attempt
from adapters.mlx.model import DraftModel
from adapters.mlx.pace import SliceSize
from adapters.mlx.prefill import PrefillOptions
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request
from domain.speculation import Payoff, Rate

_MOST_ROWS = 4
_UNKNOWN = Payoff()
_NEAR = 32  # tokens that the draft may read within a drafted step
_FIRST_SLICE = 64  # tokens, before anything was measured
_ANSWER = 128  # tokens, before any was seen
_WEIGHT = 0.2  # of each new answer


class Speculation:
    """Which steps are drafted, and how that goes."""

    def __init__(
        self,
        draft: DraftModel,
        decoding: DecodeBatch,
        options: PrefillOptions,
        kept: PrefixCache,
    ) -> None:
        self._draft = draft
        self._decoding = decoding
        self._kept = kept
        self._pace = options.pace
        self._slice = SliceSize(_FIRST_SLICE, options.step_size, options.least)
        self._drafters: dict[Request, Drafter] = {}
        self._payoffs: dict[int, Payoff] = {}  # by the number of rows
        self._answer = float(_ANSWER)  # tokens, on average
        self._reading = Rate()
        self._begun: float | None = None  # when the step before this one began,
        self._drafted = False  # whether it was drafted,
        self._going = False  # and the one before it, too,
        self._gave = 0  # and how many tokens it gave
        self.drafted = 0  # guesses so far
        self.accepted = 0

    def step(self, *, prompts: bool) -> list[Decoded] | None:
        """The tokens of a drafted step; None where an ordinary one is better, of which `gave` is
        to be told. prompts: some are being computed.
        """
        requests = [] if prompts else self._candidates()
        self._measure(requests)
        if not requests or not self._pays(requests):
            return None
        drafters = [self._drafter(request) for request in requests]
        if any(drafter.behind > _NEAR for drafter in drafters):
            return None
        if not self._decoding.settled:
            return self._decoding.settle()
        count = min(self._draft.tokens, min(request.left for request in requests) - 1)
        if count < 1:
            return None
        return self.gave(self._verified(drafters, count))

    def _verified(self, drafters: list[Drafter], count: int) -> list[Decoded]:
        guesses = mx.stack([drafter.guess(count) for drafter in drafters])
        decoded = self._decoding.verify(guesses)
        right = {one.request: one.more for one in reversed(decoded)}  # that of its first token
        for drafter in drafters:
            drafter.keep(right[drafter.request])
        self.drafted += count * len(drafters)
        self.accepted += sum(right.values())
        self._drafted = True
        return decoded

    def gave(self, decoded: list[Decoded]) -> list[Decoded]:
        """What came of the step."""
        self._gave = len(decoded)
        return decoded

    def read_on(self) -> None:
        """A slice of what the draft has to read, between two ordinary steps."""
        requests = self._candidates()
        if not requests or not self._pays(requests):
            return
        drafter = max(map(self._drafter, requests), key=lambda drafter: drafter.behind)
        if drafter.behind <= _NEAR:
            return
        self._decoding.wait()
        begun = time.perf_counter()
        count = drafter.read(self._slice.tokens)
        seconds = time.perf_counter() - begun
        step = self._payoff(requests).plain.per_token
        self._slice.measured(count, seconds, self._pace * step)
        self._reading = self._reading.add(seconds, count)
        self._begun = None

    def interrupted(self) -> None:
        """Something else was done between two steps."""
        self._begun = None

    def forget(self, request: Request) -> None:
        """It has left the batch."""
        self._begun = None
        self._answer += _WEIGHT * (len(request.generated) - self._answer)
        drafter = self._drafters.pop(request, None)
        if drafter:
            attempt(partial(self._keep, drafter))

    def _candidates(self) -> list[Request]:
        """All requests, if they are few and guesses can be of use to each."""
        requests = self._decoding.requests
        few = len(requests) <= _MOST_ROWS
        return requests if few and all(map(self._can_guess, requests)) else []

    def _can_guess(self, request: Request) -> bool:
        if request.constraint or request.row.penalised:  # each token depends on the one before
            return False
        return request.held + self._draft.tokens <= self._draft.context_length

    def _pays(self, requests: list[Request]) -> bool:
        expected = sum(min(request.left, self._answer) for request in requests) / len(requests)
        payoff = self._payoff(requests)
        if not payoff.pays(0.0, expected):
            return False
        behind = sum(self._drafter(request).behind for request in requests)
        return payoff.pays(self._reading.per_token * behind, expected)

    def _payoff(self, requests: list[Request]) -> Payoff:
        return self._payoffs.get(len(requests), _UNKNOWN)

    def _drafter(self, request: Request) -> Drafter:
        if request not in self._drafters:
            self._drafters[request] = self._begun_drafter(request)
        return self._drafters[request]

    def _begun_drafter(self, request: Request) -> Drafter:
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

    def _measure(self, requests: list[Request]) -> None:
        """From the beginning of a step to that of the next is what it took. The first that is
        drafted may take long: the draft catches up, and kernels are compiled.
        """
        now = time.perf_counter()
        if self._begun is not None and self._gave and requests:
            rows, seconds = len(requests), now - self._begun
            if not self._drafted:
                self._payoffs[rows] = self._payoff(requests).after_plain(seconds)
            elif self._going:
                per_row = self._gave / rows
                self._payoffs[rows] = self._payoff(requests).after_drafted(seconds, per_row)
        self._begun = now if requests else None
        self._going = self._drafted
        self._drafted, self._gave = False, 0


def _scope(request: Request) -> str:
    """The draft's states lie beside the target's, and serve only the draft."""
    return f"{request.scope}\0draft"
