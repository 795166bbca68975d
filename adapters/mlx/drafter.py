"""The draft model's side of one request. Worker thread only."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

from adapters.mlx.batched_kv import merge
from adapters.mlx.model import DraftModel
from adapters.mlx.request import Request
from adapters.mlx.sampling import BatchSampler


class Drafter:
    """Its caches, and how many of the tokens they hold.

    It draws as the target does, with the same random numbers: where the two nearly agree on the
    probabilities, they nearly always draw the same.
    """

    def __init__(
        self, draft: DraftModel, request: Request, held: int, caches: Sequence[Any]
    ) -> None:
        """caches: single-row, with the first `held` tokens of the request."""
        self.request = request
        self._draft = draft
        self._caches: list[Any] = [merge([cache]) for cache in caches]
        self._held = held

    @property
    def state(self) -> tuple[list[int], list[Any]]:
        """The tokens that it holds, and single-row caches with them."""
        known = self.request.known
        rows = [cache.extract(0) for cache in self._caches]
        for row in rows:  # the request may have ended amid the guesses
            row.trim(max(self._held - len(known), 0))
        return known[: self._held], rows

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
