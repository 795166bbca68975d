"""A slice of one prompt, computed in the quickest way that there is here. Worker thread only.

Two halves: a part of a prompt needs of the part before it no more than the keys and values (or the
state) of the same layer, so on a stream of its own it follows a layer behind, and on a CPU both
take little more than half the time. Where the other core has work of its own they wait for each
other, and may take longer than one part.

BLAS: where MLX's own products are slow (see `blas.py`). It takes one core and waits a lot, so that
it is worth it for more tokens.
"""

from contextlib import nullcontext
from enum import IntEnum
from math import inf
from time import perf_counter
from typing import Any

import mlx.core as mx

from adapters.mlx import gpu
from adapters.mlx.cpu_layers import BlasLayers
from adapters.mlx.pace import Averages

_WORTH = 10  # tokens; fewer take longer to wait for each other
_WORTH_BLAS = 24
_TRY = 16  # slices after which the other way is tried again
_SECOND = mx.new_thread_local_stream(mx.cpu)


class _Way(IntEnum):
    WHOLE = 1
    HALVES = 2
    BLAS = 3


class Lanes:
    """Takes the quicker way, as measured."""

    def __init__(self, layers: BlasLayers | None = None) -> None:
        self._layers = layers
        self._untried = 0  # slices since then
        self._seconds = Averages()  # for a token, by the way

    def forward(self, network: Any, tokens: list[int], caches: list[Any], opens: bool) -> None:
        """The tokens of one prompt go into its caches, which are computed then. opens: they are the
        first; who decodes meanwhile has to wait for the slower way at most once a prompt.
        """
        way = self._way(len(tokens), opens)
        begun = perf_counter()
        half = len(tokens) // 2 if way is _Way.HALVES else 0
        if half:
            with mx.stream(_SECOND):
                network(mx.array([tokens[:half]]), cache=caches)
        blas = self._layers if way is _Way.BLAS else None
        with blas.on(caches) if blas else nullcontext():
            network(mx.array([tokens[half:]]), cache=caches)
        mx.eval([cache.state for cache in caches])
        if len(tokens) >= _WORTH:
            self._seconds.add(way, (perf_counter() - begun) / len(tokens))

    def _way(self, tokens: int, opens: bool) -> _Way:
        likely, *others = self._ways(tokens)
        if not others:
            return likely
        better, other = likely, others[0]
        if self._seconds.get(other, inf) < self._seconds.get(better, 0.0):
            better, other = other, better
        self._untried += 1
        if opens and self._untried >= _TRY:
            self._untried = 0
            self._seconds.pop(other, None)  # what is known of it is old
            return other
        return better

    def _ways(self, tokens: int) -> list[_Way]:
        """One or two, first the one that is likely to be quicker."""
        if tokens < _WORTH:
            return [_Way.WHOLE]
        ways = [_Way.HALVES, _Way.WHOLE] if gpu.lanes() > 1 else [_Way.WHOLE]
        if self._layers and tokens >= _WORTH_BLAS:
            return [_Way.BLAS, ways[0]]
        return ways
