"""The KV caches of the requests that decode. Worker thread only."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx


class Rows:
    """In mlx-lm's batched caches, one for each layer. `SlottedRows` is the other way to hold
    them.
    """

    takes_ragged = False  # whether `join` takes RaggedKV as well
    take_tokens_back = True  # and `forward` more than one token of each row

    def __init__(self, network: Any) -> None:
        self._network = network
        self.caches: list[Any] = []

    def join(self, caches: list[Any]) -> None:
        """Rows of batched caches, after those that are here. The caches are no longer theirs."""
        if not self.caches:
            self.caches = caches
            return
        for own, other in zip(self.caches, caches, strict=True):
            own.extend(other)

    def stay(self, rows: Sequence[int]) -> None:
        """Only these, in this order."""
        if not rows:
            self.caches = []
        for cache in self.caches:
            cache.filter(list(rows))

    def extract(self, row: int) -> list[Any]:
        """A copy: single-row caches, one for each layer."""
        return [cache.extract(row) for cache in self.caches]

    def forward(self, inputs: mx.array) -> mx.array:
        """inputs: [rows, tokens]. The logits: [rows, tokens, vocabulary]."""
        logits: mx.array = self._network(inputs, cache=self.caches)
        return logits

    def take_back(self, wrong: Sequence[int], held: Sequence[int]) -> None:
        """From each row so many of its last tokens. The others move to the end of the batch, and
        what no row is left to need is cut off its beginning. held: tokens of each row before the
        step that is taken back.
        """
        common = min(wrong)
        rolled = [count - common for count in wrong]
        left = [count - back for count, back in zip(held, rolled, strict=True)]
        for cache in self.caches:
            cache.trim(common)
            if any(rolled):
                cache.prepare(right_padding=rolled)
                cache.finalize()
            if max(left) < max(held):
                cache.filter(list(range(len(wrong))))
