"""Passes through a network that are drawn up and never computed: what its caches look like, and
what a slice of prefill or a step of decoding needs beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

from adapters.mlx.files import leaves
from adapters.mlx.graph import Graph
from adapters.mlx.trace import record
from domain.memory import CACHE_STEP

MakeCaches = Callable[[], list[Any]]  # what a request begins with, a cache for each layer

_LOGPROBS_HELD = 3  # of the last step, of the one under way, and what samplers make of them
_GUESSED_ARRAYS = 8  # held at once, each as wide as the widest layer, where nothing can be drawn

# What networks raise on passes that can't be drawn up. Most of these ask for a value (dbrx).
UNDRAWABLE = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Width:
    """How much the worker computes at once.

    rows: prompts that are prefilled together. step: tokens of each in one slice. slots: requests
    that decode together.
    """

    rows: int
    step: int
    slots: int


class Probe:
    """Of one network, whose parameters may be promises of weights that nobody has read.

    caches: those of `width.rows` requests after a slice of prefill, without their data.
    followed: whether the pass came to its end; else some of the caches are empty that wouldn't be.
    """

    def __init__(self, network: Any, width: Width, make_caches: MakeCaches) -> None:
        self._network = network
        self._width = width
        self._make_caches = make_caches
        batch = self._batch(width.rows)
        self._first = self._draw(batch, width.rows, width.step)
        self.caches = leaves(batch)
        self.followed = self._first is not None

    def prefill(self, context: int) -> tuple[int, int]:
        """Bytes that the first slice needs beside the caches, and how many more for each token
        of the context, which is right for the last slice of `context` tokens.
        """
        start = self._first.workspace() if self._first else self._guess()
        fixed = max(start, self._decoding()) + self._beyond_windows()
        before = max(context - self._width.step, 0) // CACHE_STEP * CACHE_STEP
        if not self._first or not before:
            return fixed, 0
        last = self._draw(self._grown(before), self._width.rows, self._width.step)
        growth = last.workspace() - start if last else 0
        return fixed, max(0, -(-growth // context))

    def _draw(
        self, batch: list[Any], rows: int, tokens: int, *, logits: bool = False
    ) -> Graph | None:
        try:
            return record(self._network, batch, rows, tokens, logits=logits)
        except UNDRAWABLE:
            return None

    def _decoding(self) -> int:
        """A step of a full batch that has just begun, and the log-probabilities it leaves."""
        rows = self._width.slots
        graph = self._draw(self._batch(rows), rows, 1, logits=True)
        return graph.workspace() + _LOGPROBS_HELD * graph.said if graph else 0

    def _grown(self, tokens: int) -> list[Any]:
        """The caches of requests of so many tokens, as if those had been computed."""
        batch = self._batch(self._width.rows)
        for cache, like in zip(leaves(batch), self.caches, strict=True):
            _grow(cache, like, tokens)
        return batch

    def _beyond_windows(self) -> int:
        """While a prompt is computed, a windowed cache keeps all of a slice more."""
        windowed = [cache for cache in self.caches if hasattr(cache, "max_size")]
        per_token = sum(c.nbytes // slots(c) for c in windowed if not c.empty())
        return int(per_token * (self._width.step - 1))

    def _batch(self, rows: int) -> list[Any]:
        """Empty caches, merged as the worker's are."""
        each = [self._make_caches() for _ in range(rows)]
        return [layer[0].merge(list(layer)) for layer in zip(*each, strict=True)]

    def _guess(self) -> int:
        """The embedding is wider than any layer, but of it only rows are read."""
        parameters: list[tuple[str, mx.array]] = tree_flatten(self._network.parameters())  # type: ignore[assignment]
        widths = sorted({array.shape[-2] for _, array in parameters if array.ndim > 1})
        return self._width.rows * self._width.step * 4 * _GUESSED_ARRAYS * widths[-2:][0]


def slots(cache: Any) -> int:
    """How many tokens of each request a KV cache has room for; a quantised one has triples."""
    keys = cache.keys if isinstance(cache.keys, mx.array) else cache.keys[0]
    return int(keys.shape[2])


def _grow(cache: Any, like: Any, tokens: int) -> None:
    """Make an empty cache one that has seen so many tokens."""
    if not hasattr(cache, "keys"):
        cache.cache = [None if a is None else mx.zeros(a.shape, a.dtype) for a in like.cache]
        return
    if like.empty():
        return
    kept = min(tokens, getattr(cache, "max_size", tokens))
    cache.keys, cache.values = tree_map(
        lambda array: mx.zeros((*array.shape[:2], kept, array.shape[3]), array.dtype),
        (like.keys, like.values),
    )
    cache.offset = cache.offset + tokens
    cache._idx = kept
    if hasattr(cache, "_offset"):
        cache._offset = tokens
