"""KV caches that are kept quantised and can be batched. Worker thread only.

mlx-lm keeps them so for a request alone: its QuantizedKVCache can't be merged.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map, tree_reduce
from mlx_lm.models.cache import (
    BatchKVCache,
    KVCache,
    QuantizedKVCache,
    dynamic_roll,
    make_prompt_cache,
)

from domain.errors import InvalidRequest
from domain.memory import whole_steps

_GROUP_SIZES = (64, 32)  # values that share a scale and a bias; the larger takes less memory


class QuantizedRow(QuantizedKVCache):
    """The cache of one request, of which batches are made."""

    def size(self) -> int:
        return int(self.offset)  # mlx-lm's is always 0

    @property
    def nbytes(self) -> int:
        return _size(self)  # mlx-lm's fails while it is empty

    @classmethod
    def merge(cls, rows: "Sequence[QuantizedRow]") -> "BatchQuantizedKVCache":
        return BatchQuantizedKVCache.merge(rows)


class BatchQuantizedKVCache(BatchKVCache):
    """BatchKVCache, but keys and values are triples: packed numbers, scales, biases.

    Each of the three is [row, head, token, ...], so what moves rows and tokens about moves all
    alike. A token is quantised when it comes and never again: moving costs no precision.
    """

    keys: Any
    values: Any
    left_padding: Any  # an mx.array; its stubs don't know what `tolist` gives

    def __init__(self, left_padding: Sequence[int], bits: int, group_size: int) -> None:
        super().__init__(list(left_padding))
        self.bits = bits  # by this attribute mlx-lm's attention knows a quantised cache
        self.group_size = group_size

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        new = (self._quantized(keys), self._quantized(values))
        start, self._idx = self._idx, self._idx + keys.shape[2]
        self.offset = self.offset + keys.shape[2]
        self._make_room(new, start)

        def write(buffer: mx.array, tokens: mx.array) -> None:
            buffer[..., start : self._idx, :] = tokens

        tree_map(write, (self.keys, self.values), new)
        return self.keys_and_values()

    def keys_and_values(self) -> Any:
        return tree_map(lambda a: a[..., : self._idx, :], (self.keys, self.values))

    def finalize(self) -> None:
        if self._right_padding is not None:
            padding = self._right_padding
            self._map(lambda a: dynamic_roll(a, padding[:, None], axis=2))
            self.offset = self.offset - padding
            self.left_padding = self.left_padding + padding
            self._right_padding = None

    def filter(self, batch_indices: Sequence[int]) -> None:
        keep = mx.array(list(batch_indices))
        self.offset = self.offset[keep]
        left_padding = self.left_padding[keep]
        unused = min(left_padding.tolist())
        self._map(lambda a: a[keep][..., unused:, :])
        self.left_padding = left_padding - unused
        self._idx = max(self._idx - unused, 0)

    def extend(self, *others: "BatchQuantizedKVCache") -> None:
        """Append their rows. All rows then end at the same place, where the next token goes."""
        caches = (self, *others)
        filled = next((cache for cache in caches if not cache.empty()), None)
        end = max(cache._idx for cache in caches)
        left_padding = mx.concatenate([c.left_padding + (end - c._idx) for c in caches])
        if filled is not None:
            size = max(c.keys[0].shape[2] for c in caches if not c.empty())
            aligned = [cache._aligned(end, size, filled) for cache in caches]
            self.keys, self.values = tree_map(lambda *a: mx.concatenate(list(a)), *aligned)
        self.left_padding = left_padding
        self.offset = mx.concatenate([cache.offset for cache in caches])
        self._idx = end

    def extract(self, idx: int) -> QuantizedRow:
        row = QuantizedRow(self.group_size, self.bits)
        if not self.empty():
            start = self.left_padding.tolist()[idx]
            # A copy: a slice would keep the whole batch's memory.
            row.keys, row.values = tree_map(
                lambda a: mx.contiguous(a[idx : idx + 1, :, start : self._idx]),
                (self.keys, self.values),
            )
            row.offset = self._idx - start
        return row

    @classmethod
    def merge(cls, rows: Sequence[QuantizedRow]) -> "BatchQuantizedKVCache":
        batch, *others = (cls._of_one(row) for row in rows)
        batch.extend(*others)
        return batch

    def empty(self) -> bool:
        return self.keys is None

    @property
    def nbytes(self) -> int:
        return _size(self)

    @property
    def state(self) -> Any:
        arrays = (self.keys, self.values, self.offset, self.left_padding)
        return *arrays, self._idx, self.group_size, self.bits

    @state.setter
    def state(self, state: Any) -> None:
        self.keys, self.values, self.offset, self.left_padding, *numbers = state
        self._idx, self.group_size, self.bits = numbers
        self._right_padding = None  # `from_state` runs no __init__

    @classmethod
    def _of_one(cls, row: QuantizedRow) -> "BatchQuantizedKVCache":
        batch = cls([0], row.bits, row.group_size)
        if row.keys is not None:
            used = (row.keys, row.values)
            batch.keys, batch.values = tree_map(lambda a: a[..., : row.offset, :], used)
        batch.offset = mx.array([row.offset])
        batch._idx = row.offset
        return batch

    def _quantized(self, tokens: mx.array) -> Any:
        return mx.quantize(tokens, group_size=self.group_size, bits=self.bits)

    def _make_room(self, new: Any, start: int) -> None:
        """See that the buffers reach to `_idx`. They end at whole steps, as the reserve counts."""
        if not self.empty() and self.keys[0].shape[2] >= self._idx:
            return
        tokens = whole_steps(self._idx) - start

        def room(a: mx.array) -> mx.array:
            return mx.zeros((*a.shape[:2], tokens, a.shape[3]), a.dtype)

        if self.empty():
            self.keys, self.values = tree_map(room, new)
        else:
            self.keys, self.values = tree_map(
                lambda old, a: mx.concatenate([old[..., :start, :], room(a)], axis=2),
                (self.keys, self.values),
                new,
            )

    def _aligned(self, end: int, size: int, like: "BatchQuantizedKVCache") -> Any:
        """Keys and values in buffers of `size` tokens, the last token before `end`."""
        rows, left = self.offset.shape[0], end - self._idx

        def nothing(a: mx.array) -> mx.array:
            return mx.zeros((rows, a.shape[1], size, a.shape[3]), a.dtype)

        def moved(a: mx.array) -> mx.array:
            a = a[..., : size - left, :]  # no more than the unused end is cut
            return mx.pad(a, [(0, 0), (0, 0), (left, size - left - a.shape[2]), (0, 0)])

        if self.empty():
            return tree_map(nothing, (like.keys, like.values))
        return tree_map(moved, (self.keys, self.values))

    def _map(self, change: Callable[[mx.array], mx.array]) -> None:
        if not self.empty():
            self.keys, self.values = tree_map(change, (self.keys, self.values))


@dataclass(frozen=True, slots=True)
class KvQuantization:
    """How a model's KV caches are quantised. Made by `plan_quantization`, which has tried it."""

    bits: int
    group_size: int

    def make_caches(self, network: Any) -> list[Any]:
        """What a request begins with; one cache for each layer."""
        return quantize_caches(make_prompt_cache(network), self.bits, self.group_size)


def quantize_caches(caches: Sequence[Any], bits: int, group_size: int = 64) -> list[Any]:
    """Empty caches, the plain ones among them replaced.

    Those that don't grow with the context (rotating, chunked, arrays) and those that only their
    model understands (lists of caches) stay as they are.
    """
    return [QuantizedRow(group_size, bits) if type(c) is KVCache else c for c in caches]


def plan_quantization(network: Any, bits: int, *, evaluate: bool = True) -> KvQuantization:
    """Raises InvalidRequest for models that can't have their KV cache quantised.

    Two rows of unequal lengths are tried: first as the model is, so that a fault of its own is
    not blamed on `kv_bits`, and to learn the widths of its keys and values. evaluate: without it
    no weights are read; shapes alone show all but what a device can't compute.
    """
    _, caches = _try_out(network, lambda: make_prompt_cache(network))
    plan = KvQuantization(bits, _group_size(caches))
    try:
        logits, _ = _try_out(network, lambda: plan.make_caches(network))
        if evaluate:
            mx.eval(logits)
    except Exception as error:
        # Models fail in their own ways. Where one computes with the keys itself, as MLA does, the
        # error is of types and says nothing; mlx-lm's own words (of attention sinks) do.
        why = f" ({error})" if isinstance(error, ValueError) else ""
        raise InvalidRequest(
            f"This model's attention can't work with a quantised KV cache{why}, so `kv_bits` has "
            "to be left out for it.",
            "kv_bits",
        ) from error
    return plan


def _group_size(caches: Sequence[Any]) -> int:
    """The largest that divides all keys and values of plain layers."""
    plain: list[Any] = [cache for cache in caches if type(cache) is BatchKVCache]
    widths = {a.shape[-1] for cache in plain for a in (cache.keys, cache.values) if a is not None}
    if not widths:
        raise InvalidRequest(
            "No layer of this model has a KV cache that could be quantised, so `kv_bits` has to be "
            "left out for it.",
            "kv_bits",
        )
    for size in _GROUP_SIZES:
        if all(width % size == 0 for width in widths):
            return size
    shown = ", ".join(str(width) for width in sorted(widths))
    raise InvalidRequest(
        f"Only attention heads whose size is a multiple of {_GROUP_SIZES[-1]} can be quantised; "
        f"this model has {shown}, so `kv_bits` has to be left out for it.",
        "kv_bits",
    )


def _try_out(network: Any, make: Callable[[], list[Any]]) -> tuple[mx.array, list[Any]]:
    """Logits and caches after three tokens in one row and two in another, and one more in both."""
    caches = [first.merge([first, second]) for first, second in zip(make(), make(), strict=True)]
    for cache in caches:
        cache.prepare(lengths=[3, 2], right_padding=[0, 1])
    network(mx.zeros((2, 3), mx.int32), cache=caches)
    for cache in caches:
        cache.finalize()
    return network(mx.zeros((2, 1), mx.int32), cache=caches), caches


def _size(cache: Any) -> int:
    """In bytes, room for tokens to come included."""
    arrays = () if cache.empty() else (cache.keys, cache.values)
    return int(tree_reduce(lambda total, a: total + a.nbytes, arrays, 0))
