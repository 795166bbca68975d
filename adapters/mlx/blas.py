"""Products by numpy's BLAS, for MLX's CPU build. Worker thread only.

MLX's wheels for Linux bring the reference BLAS, and a plain loop for numbers of 16 bits: 2 to 5
GFLOP/s on a core of which OpenBLAS, which numpy brings, makes 60. For 16 bits the bits are the
same: a product of two is exact in 32 bits, and both add up one after the other, OpenBLAS up to the
length of its blocks (448 on AVX-512) and if the second matrix lies row by row. That is its habit
and no promise, so it is tried here. In 32 bits sums differ in their last bits.
"""

import functools
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import product
from time import perf_counter

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

Numbers = npt.NDArray[np.float32]

ALIGNED = 16  # columns of the second matrix: OpenBLAS adds up odd ones in another order

_TERMS = (448, 384, 320, 256)  # of a sum
# Rows and columns: OpenBLAS has other ways for small ones. Of many sums one in 100,000 may differ.
_SHAPES = [*product((2, 5, 16, 33), (16, 32, 48, 256)), (128, 1024)]
_NEAR = 1e-5  # of the largest sum
_WORTH = 2.0  # times as quick
_TIMES = 3


def numbers(*arrays: mx.array) -> list[Numbers]:
    """Computes them, and what they hang on, now."""
    wide = [array.astype(mx.float32) for array in arrays]
    mx.eval(wide)
    return [np.asarray(array) for array in wide]


def one_thread() -> AbstractContextManager[object]:
    """The other core has work of its own: OpenBLAS would keep it waiting."""
    limit: AbstractContextManager[object] = _pools().limit(limits=1, user_api="blas")
    return limit


@functools.cache
def _pools() -> ThreadpoolController:
    return ThreadpoolController()


def rounded(sums: Numbers, dtype: mx.Dtype) -> mx.array:
    return mx.array(sums).astype(dtype)


@functools.cache
def most_terms(dtype: mx.Dtype) -> int:
    """How long sums may be for MLX's own results, quicker. 0 if there are none."""
    with one_thread():
        if not _is_worth(dtype):
            return 0
        if dtype == mx.float32:
            return sys.maxsize if _agree_up_to(_TERMS[0], dtype) else 0
        return next((terms for terms in _TERMS if _agree_up_to(terms, dtype)), 0)


def same(ours: mx.array, expected: mx.array) -> bool:
    """All bits of 16; of 32 all but the last."""
    allowed = _NEAR * mx.max(mx.abs(expected)) if expected.dtype == mx.float32 else 0
    return bool(mx.all(mx.abs(ours - expected) <= allowed))


def _agree_up_to(terms: int, dtype: mx.Dtype) -> bool:
    lengths = (terms, terms // 2 + 3, 64)
    return all(_agree(*shape, length, dtype) for length in lengths for shape in _SHAPES)


def _agree(rows: int, columns: int, terms: int, dtype: mx.Dtype) -> bool:
    left, second = _pair(rows, columns, terms, dtype)
    known = numbers(left, second)
    return same(rounded(np.matmul(known[0], known[1]), dtype), left @ second)


def _is_worth(dtype: mx.Dtype) -> bool:
    left, second = _pair(64, 1024, 256, dtype)
    [known] = numbers(second)
    own = min(_seconds(lambda: left @ second) for _ in range(_TIMES))
    other = min(
        _seconds(lambda: rounded(np.matmul(numbers(left)[0], known), dtype)) for _ in range(_TIMES)
    )
    return own > _WORTH * other


def _seconds(compute: Callable[[], mx.array]) -> float:
    begun = perf_counter()
    mx.eval(compute())
    return perf_counter() - begun


def _pair(rows: int, columns: int, terms: int, dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
    keys = mx.random.split(mx.random.key(rows * columns + terms))
    left = mx.random.normal((rows, terms), dtype, key=keys[0])
    second = mx.random.normal((terms, columns), dtype, key=keys[1])
    mx.eval(left, second)
    return left, second
