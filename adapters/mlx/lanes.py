"""A prompt computed in two parts at the same time. Worker thread only.

A part of a prompt needs of the part before it no more than the keys and values (or the state) of
the same layer, so on a stream of its own it follows a layer behind, and on a CPU both take little
more than half the time.
"""

from typing import Any

import mlx.core as mx

from adapters.mlx import gpu

_WORTH = 10  # tokens; fewer take longer to wait for each other
_SECOND = mx.new_thread_local_stream(mx.cpu)


def forward(network: Any, tokens: list[int], caches: list[Any]) -> None:
    """The tokens of one prompt go into its caches, which the caller evaluates, all at once."""
    if len(tokens) >= _WORTH and gpu.lanes() > 1:
        half = len(tokens) // 2
        with mx.stream(_SECOND):
            network(mx.array([tokens[:half]]), cache=caches)
        tokens = tokens[half:]
    network(mx.array([tokens]), cache=caches)
