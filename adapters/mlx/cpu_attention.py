"""Attention and activations of the prompts of a slice, for MLX's CPU build. Worker thread only."""

import functools
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.activations import silu
from mlx_lm.models.base import create_causal_mask

from adapters.mlx.blas import ALIGNED, Numbers, most_terms, numbers, rounded, same

_WORTH = 1 << 13  # scores, or numbers of a gate
_SHORT = (mx.bfloat16, mx.float16)


def is_quick(queries: mx.array, keys: Any, values: Any, mask: Any) -> bool:
    """Whether `attend` is of use for these, and gives the same."""
    rows, heads, count, width = queries.shape
    if count == 1 or not isinstance(keys, mx.array):  # they may be quantised
        return False
    large = rows * heads * count * keys.shape[2] >= _WORTH
    alike = queries.dtype == keys.dtype == values.dtype
    fit = not width % ALIGNED and not values.shape[-1] % ALIGNED
    told = mask is None or isinstance(mask, str) or mask.dtype == mx.bool_
    return large and alike and fit and told and _agrees(queries.dtype)


@functools.cache
def _agrees(dtype: mx.Dtype) -> bool:
    if not most_terms(dtype):
        return False
    queries, keys, values = (
        mx.random.normal((1, heads, length, 32), dtype, key=mx.random.key(heads))
        for heads, length in ((4, 40), (2, 100), (2, 100))
    )
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.2, mask="causal")
    return same(attend(queries, keys, values, 0.2, "causal"), expected)


def attend(
    queries: mx.array, keys: mx.array, values: mx.array, scale: float, mask: Any
) -> mx.array:
    """As `mx.fast.scaled_dot_product_attention`, now."""
    rows, heads, count, _ = queries.shape
    kv_heads, length = keys.shape[1:3]
    grouped = (rows, kv_heads, heads // kv_heads * count)  # heads that share their keys
    scores = _scores(queries * scale, keys, grouped).reshape(rows, heads, count, length)
    if mask is not None:
        seen = create_causal_mask(count, length - count) if isinstance(mask, str) else mask
        scores = mx.where(seen, scores, mx.finfo(scores.dtype).min)
    # Of scores of 16 bits MLX computes the powers twice.
    shares = mx.softmax(scores.astype(mx.float32), axis=-1).astype(queries.dtype)
    shares = shares.reshape(*grouped, length)
    if length <= most_terms(queries.dtype):
        known = numbers(shares, values)
        out = rounded(np.matmul(known[0], known[1]), queries.dtype)
    else:
        out = shares @ values
    return out.reshape(rows, heads, count, values.shape[-1])


def _scores(queries: mx.array, keys: mx.array, grouped: tuple[int, ...]) -> mx.array:
    """[*grouped, length]."""
    left, second = numbers(queries, keys)
    rows, kv_heads, length, width = second.shape
    columns = -(-length // ALIGNED) * ALIGNED
    across = np.zeros((rows, kv_heads, width, columns), np.float32)
    across[..., :length] = second.swapaxes(2, 3)
    sums = np.matmul(left.reshape(*grouped, width), across)
    return rounded(sums, queries.dtype)[..., :length]


def has_table(gates: mx.array, x: mx.array) -> bool:
    """Whether `gate` can be computed from one, and is worth it."""
    return gates.dtype in _SHORT and x.dtype == gates.dtype and gates.size >= _WORTH


def gate(gates: mx.array, x: mx.array) -> mx.array:
    """As mlx-lm's `swiglu`, now. SiLU is looked up: there are only 65,536 numbers of 16 bits."""
    which, factors = gates.view(mx.uint16), x.astype(mx.float32)
    mx.eval(which, factors)
    out = _silu(gates.dtype).take(np.asarray(which))
    out *= np.asarray(factors)
    return rounded(out, gates.dtype)


@functools.cache
def _silu(dtype: mx.Dtype) -> Numbers:
    every = mx.arange(1 << 16, dtype=mx.uint32).astype(mx.uint16).view(dtype)
    return numbers(silu(every))[0]
