"""Drafted steps: a small model guesses the next tokens of the only row, and one pass of the large
one finds what it says at all of these places. Worker thread only.

Every token is the target's own: drawn from its logits with the row's own draws. A guess only
decides whether the pass that gave it was of use, so the answer is the one without a draft.
"""

import time
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from adapters.mlx.batched_kv import merge
from adapters.mlx.decode import DecodeBatch, Decoded
from adapters.mlx.model import DraftModel
from adapters.mlx.pace import SliceSize
from adapters.mlx.prefill import PrefillOptions
from adapters.mlx.request import Request
from adapters.mlx.sampling import BatchSampler
from domain.speculation import Payoff, Rate

_NEAR = 32  # tokens that the draft may read within a drafted step
_FIRST_SLICE = 64  # tokens, before anything was measured
_ANSWER = 128  # tokens, before any was seen
_WEIGHT = 0.2  # of each new answer


class Drafter:
    """The draft's side of one request: its caches, and how many of the tokens they hold.

    It draws as the target does, with the same random numbers: where the two nearly agree on the
    probabilities, they nearly always draw the same.
    """

    def __init__(self, draft: DraftModel, request: Request) -> None:
        self.request = request
        self._draft = draft
        self._caches: list[Any] = [merge([cache]) for cache in make_prompt_cache(draft.network)]
        self._held = 0

    @property
    def behind(self) -> int:
        """Tokens to read before it can guess."""
        return self.request.held - self._held

    def read(self, at_most: int) -> int:
        """A slice of what it has not read, but for the last token, which is left for `guess`: how
        many tokens that was.
        """
        tokens = self.request.known[self._held : -1][:at_most]
        self._forward(mx.array([tokens]))
        mx.eval([cache.state for cache in self._caches])
        self._held += len(tokens)
        return len(tokens)

    def guess(self, count: int) -> mx.array:
        """The next tokens: [count], on their way."""
        row = self.request.row.ahead(0)
        sampler = BatchSampler([row])
        inputs = mx.array([self.request.known[self._held :]])
        guesses: list[mx.array] = []
        for _ in range(count):
            logits = self._forward(inputs)[:, -1]
            guesses.append(sampler.sample(sampler.process(self._fitted(logits))))
            mx.async_eval(guesses[-1])
            inputs = guesses[-1][None]
        self._held = self.request.held + count - 1
        return mx.concatenate(guesses)

    def keep(self, right: int) -> None:
        """So many of the guesses were right: forget the others. Before the request hears of any."""
        wrong = max(self._held - self.request.held - right, 0)
        for cache in self._caches:
            cache.trim(wrong)
        self._held -= wrong

    def _forward(self, tokens: mx.array) -> mx.array:
        """tokens: [1, length]. The target may have rows of its embedding that the draft lacks."""
        known = mx.minimum(tokens, self._draft.vocabulary_size - 1)
        logits: mx.array = self._draft.network(known, cache=self._caches)
        return logits

    def _fitted(self, logits: mx.array) -> mx.array:
        """To the target's width: models of one family pad their vocabularies differently."""
        width = self.request.model.vocabulary_size
        missing = width - logits.shape[-1]
        if missing > 0:
            return mx.pad(logits, [(0, 0), (0, missing)], constant_values=-mx.inf)
        return logits[:, :width]


class Speculation:
    """Which steps are drafted, and how that goes."""

    def __init__(self, draft: DraftModel, decoding: DecodeBatch, options: PrefillOptions) -> None:
        self._draft = draft
        self._decoding = decoding
        self._pace = options.pace
        self._slice = SliceSize(_FIRST_SLICE, options.step_size)
        self._drafter: Drafter | None = None
        self._payoff = Payoff()
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
        request = None if prompts else self._candidate()
        self._measure(request)
        if request is None or not self._pays(request):
            return None
        drafter = self._drafter_of(request)
        if drafter.behind > _NEAR:
            return None
        if not self._decoding.settled:
            return self._decoding.settle()
        count = min(self._draft.tokens, request.left - 1)
        if count < 1:
            return None
        decoded = self._decoding.verify(drafter.guess(count))
        drafter.keep(len(decoded) - 1)
        self.drafted += count
        self.accepted += len(decoded) - 1
        self._drafted = True
        return self.gave(decoded)

    def gave(self, decoded: list[Decoded]) -> list[Decoded]:
        """What came of the step."""
        self._gave = len(decoded)
        return decoded

    def read_on(self) -> None:
        """A slice of what the draft has to read, between two ordinary steps."""
        request = self._candidate()
        if request is None or not self._pays(request):
            return
        drafter = self._drafter_of(request)
        if drafter.behind <= _NEAR:
            return
        self._decoding.wait()
        begun = time.perf_counter()
        count = drafter.read(self._slice.tokens)
        seconds = time.perf_counter() - begun
        self._slice.measured(count, seconds, self._pace * self._payoff.plain.per_token)
        self._reading = self._reading.add(seconds, count)
        self._begun = None

    def interrupted(self) -> None:
        """Something else was done between two steps."""
        self._begun = None

    def forget(self, request: Request) -> None:
        """It has left the batch."""
        self._begun = None
        self._answer += _WEIGHT * (len(request.generated) - self._answer)
        if self._drafter and self._drafter.request is request:
            self._drafter = None

    def _candidate(self) -> Request | None:
        """The only request, if guesses can be of use to it."""
        if len(self._decoding.requests) != 1:
            return None
        request = self._decoding.requests[0]
        if request.constraint or request.row.penalised:  # each token depends on the one before
            return None
        fits = request.held + self._draft.tokens <= self._draft.context_length
        return request if fits else None

    def _pays(self, request: Request) -> bool:
        drafter = self._drafter
        known = drafter is not None and drafter.request is request
        behind = drafter.behind if drafter and known else request.held
        expected = min(request.left, self._answer)
        return self._payoff.pays(self._reading.per_token * behind, expected)

    def _drafter_of(self, request: Request) -> Drafter:
        if self._drafter is None or self._drafter.request is not request:
            self._drafter = Drafter(self._draft, request)
        return self._drafter

    def _measure(self, request: Request | None) -> None:
        """From the beginning of a step to that of the next is what it took. The first that is
        drafted may take long: the draft catches up, and kernels are compiled.
        """
        now = time.perf_counter()
        if self._begun is not None and self._gave:
            seconds = now - self._begun
            if not self._drafted:
                self._payoff = self._payoff.after_plain(seconds)
            elif self._going:
                self._payoff = self._payoff.after_drafted(seconds, self._gave)
        self._begun = now if request else None
        self._going = self._drafted
        self._drafted, self._gave = False, 0
