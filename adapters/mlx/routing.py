"""Functions of mlx-lm's models that are computed in another way. Worker thread only.

mlx-lm's models call attention and activations by names in their own modules. What they call is
replaced there once, for all models of an architecture, and asks which way its thread has chosen.
"""

import sys
import threading
from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.models import activations, base

Attend = Callable[..., mx.array]  # takes what mlx-lm's scaled_dot_product_attention takes
Gate = Callable[[mx.array, mx.array], mx.array]


class _Ways(threading.local):
    """attend: attention. gate: SwiGLU."""

    def __init__(self) -> None:
        self.attend: Attend = base.scaled_dot_product_attention
        self.gate: Gate = activations.swiglu


ways = _Ways()


def route(network: Any) -> None:
    """Its calls go through here from now on."""
    for module in {type(part).__module__ for part in network.modules()}:
        names = vars(sys.modules[module])
        for name, (plain, ours) in _ROUTED.items():
            if names.get(name) is plain:
                names[name] = ours


def _attention(
    queries: mx.array,
    keys: Any,
    values: Any,
    cache: Any,
    scale: float,
    mask: Any,
    sinks: mx.array | None = None,
) -> mx.array:
    if own := getattr(cache, "attend", None):
        out: mx.array = own(queries, keys, values, scale=scale, mask=mask, sinks=sinks)
        return out
    return ways.attend(queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks)


def _swiglu(gate: mx.array, x: mx.array) -> mx.array:
    return ways.gate(gate, x)


_ROUTED: dict[str, tuple[Any, Any]] = {
    "scaled_dot_product_attention": (base.scaled_dot_product_attention, _attention),
    "swiglu": (activations.swiglu, _swiglu),
}
