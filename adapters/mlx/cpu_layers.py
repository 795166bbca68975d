"""Prompts that go through numpy's BLAS (see `blas.py`). Worker thread only.

Numpy reads what is computed, so Python waits before every product. That is little beside what a
slice of a prompt takes, and too much beside a step of decoding, which stays mlx-lm's.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.nn.layers.linear import Linear
from mlx_lm.models.activations import swiglu
from mlx_lm.models.base import scaled_dot_product_attention
from mlx_lm.models.cache import make_prompt_cache

from adapters.mlx.blas import ALIGNED, Numbers, most_terms, numbers, one_thread, rounded, same
from adapters.mlx.cpu_attention import attend, gate, has_table, is_quick
from adapters.mlx.files import leaves
from adapters.mlx.routing import route, ways
from adapters.mlx.trial import REFUSALS

logger = logging.getLogger("portico.engine")

_WORTH = 1 << 18  # multiplications; for fewer nobody waits
_TRIED = 32  # rows


class Pass:
    """One slice on its way through the network. over: all that is kept of it is there. What would
    follow is of no use, and MLX, which is lazy, never computes it.
    """

    def __init__(self) -> None:
        self.over = True
        self._last: list[Any] = []
        self._read: mx.array | None = None
        self._numbers: list[Numbers] = []

    @contextmanager
    def under_way(self, last: Sequence[Any]) -> Iterator[None]:
        """last: the caches of the last layer."""
        self.over, self._last = False, list(last)
        try:
            yield
        finally:
            self.over, self._last, self._read, self._numbers = True, [], None, []

    def read(self, inputs: mx.array) -> Numbers:
        """Queries, keys and values are products of the same."""
        if self._read is not inputs:
            self._read, self._numbers = inputs, numbers(inputs)
        return self._numbers[0]

    def attend(
        self,
        queries: mx.array,
        keys: Any,
        values: Any,
        *,
        cache: Any,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        """As mlx-lm's `scaled_dot_product_attention`."""
        self.over = self.over or any(cache is last for last in self._last)
        if self.over or sinks is not None or not is_quick(queries, keys, values, mask):
            plain: mx.array = scaled_dot_product_attention(
                queries, keys, values, cache=cache, scale=scale, mask=mask, sinks=sinks
            )
            return plain
        return attend(queries, keys, values, scale, mask)

    def gate(self, gates: mx.array, x: mx.array) -> mx.array:
        """As mlx-lm's `swiglu`."""
        if self.over or not has_table(gates, x):
            plain: mx.array = swiglu(gates, x)
            return plain
        return gate(gates, x)


class BlasLinear(Linear):
    """The same layer. across: its matrix, [inputs, outputs]. added: its bias."""

    across: Numbers
    added: Numbers | None
    on_its_way: Pass

    def __call__(self, x: mx.array) -> mx.array:
        weight: mx.array = self["weight"]
        alike = x.dtype == weight.dtype
        if self.on_its_way.over or not alike or x.size * weight.shape[0] < _WORTH:
            plain: mx.array = super().__call__(x)
            return plain
        sums: Numbers = np.matmul(self.on_its_way.read(x), self.across)
        if self.added is not None:
            sums += self.added
        return rounded(sums, x.dtype)


class BlasLayers:
    """Those of a network that fit."""

    def __init__(self, network: Any) -> None:
        self._pass = Pass()
        fit: dict[tuple[Any, ...], bool] = {}
        self._layers: list[Any] = []
        for part in _inside(network):
            kind = (*part.weight.shape, part.weight.dtype, "bias" in part)
            if kind not in fit:
                fit[kind] = _is_fit(part.weight) and self._agrees(part)
            if fit[kind]:
                self._prepare(part)
                self._layers.append(part)
        route(network)
        if self._layers and not self._works(network):
            self._layers = []

    def __bool__(self) -> bool:
        return bool(self._layers)

    @property
    def copied(self) -> int:
        """Bytes of the matrices that are in memory twice."""
        short = (part for part in self._layers if part.weight.dtype != mx.float32)
        return sum(part.across.nbytes for part in short)

    @contextmanager
    def on(self, caches: Sequence[Any]) -> Iterator[None]:
        """Within, the network computes a slice of a prompt with them. caches: one for each layer;
        what is not needed for them is not computed.
        """
        plain = ways.attend, ways.gate
        ways.attend, ways.gate = self._pass.attend, self._pass.gate
        _turn(self._layers, BlasLinear)
        try:
            # MLX says nothing of numbers that overflow.
            with one_thread(), np.errstate(all="ignore"):
                with self._pass.under_way(leaves(caches[-1:])):
                    yield
        finally:
            _turn(self._layers, Linear)
            ways.attend, ways.gate = plain

    def _works(self, network: Any) -> bool:
        """A model may do with its layers what allows no look at their results."""
        caches = make_prompt_cache(network)
        try:
            with self.on(caches):
                network(mx.zeros((1, _TRIED), dtype=mx.uint32), cache=caches)
            mx.eval([cache.state for cache in caches])
        except REFUSALS as error:
            logger.info("this model's prompts can't go through BLAS: %s", error)
            return False
        return True

    def _prepare(self, part: Any) -> None:
        [rows] = numbers(part.weight)
        # Of 32 bits it is the same memory.
        part.across = rows.T if part.weight.dtype == mx.float32 else np.ascontiguousarray(rows.T)
        part.added = numbers(part.bias)[0] if "bias" in part else None
        part.on_its_way = self._pass

    def _agrees(self, part: Any) -> bool:
        """Tried, because what a layer adds to its sums may be rounded with them or after."""
        outputs, inputs = part.weight.shape
        rows = max(_TRIED, -(-_WORTH // (outputs * inputs)))
        x = mx.random.normal((rows, inputs), part.weight.dtype, key=mx.random.key(outputs))
        expected = part(x)
        self._prepare(part)
        _turn([part], BlasLinear)
        with one_thread(), np.errstate(all="ignore"), self._pass.under_way([]):
            ours = part(x)
        _turn([part], Linear)
        return same(ours, expected)


def _inside(network: Any) -> Iterator[Any]:
    """Of its layers. What follows them is not needed for a prompt."""
    for layer in network.layers:
        yield from (part for part in layer.modules() if type(part) is Linear)


def _is_fit(matrix: mx.array) -> bool:
    outputs, inputs = matrix.shape
    return outputs % ALIGNED == 0 and inputs <= most_terms(matrix.dtype)


def _turn(layers: list[Any], kind: type[Linear]) -> None:
    for layer in layers:
        layer.__class__ = kind
