"""A prompt computed in two parts at the same time. Worker thread only.

A part of a prompt needs of the part before it no more than the keys and values (or the state) of
the same layer, so on a stream of its own it follows a layer behind, and on a CPU both take little
more than half the time. Where the other core has work of its own they wait for each other, and
may take longer than one part.
"""

from math import inf
from time import perf_counter
from typing import Any

import mlx.core as mx

from adapters.mlx import gpu
from adapters.mlx.pace import Averages

_WORTH = 10  # tokens; fewer take longer to wait for each other
_TRY = 16  # slices after which the other way is tried again
_SECOND = mx.new_thread_local_stream(mx.cpu)


class Lanes:
    """Takes the quicker way, as measured."""

    def __init__(self) -> None:
        self._untried = 0  # slices since then
        self._seconds = Averages()  # for a token, by the number of parts

    def forward(self, network: Any, tokens: list[int], caches: list[Any], opens: bool) -> None:
        """The tokens of one prompt go into its caches, which are computed then. opens: they are the
        first; who decodes meanwhile has to wait for the slower way at most once a prompt.
        """
        parts = self._parts(len(tokens), opens)
        begun = perf_counter()
        half = len(tokens) // 2 if parts > 1 else 0
        if half:
            with mx.stream(_SECOND):
                network(mx.array([tokens[:half]]), cache=caches)
        network(mx.array([tokens[half:]]), cache=caches)
        mx.eval([cache.state for cache in caches])
        if len(tokens) >= _WORTH:
            self._seconds.add(parts, (perf_counter() - begun) / len(tokens))

    def _parts(self, tokens: int, opens: bool) -> int:
        if tokens < _WORTH or gpu.lanes() == 1:
            return 1
        self._untried += 1
        better = 1 if self._seconds.get(1, inf) < self._seconds.get(2, 0.0) else 2
        if opens and self._untried >= _TRY:
            self._untried = 0
            self._seconds.pop(3 - better, None)  # what is known of it is old
            return 3 - better
        return better
