"""The state of a model after some tokens, kept so that nothing can change it. Worker thread only.

MLX arrays are values: writing into a slice replaces what one Python object stands for, and copies
the memory if another array shares it. So a copy of a state needs new array objects, not memory.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import (
    ArraysCache,
    CacheList,
    ChunkedKVCache,
    KVCache,
    RotatingKVCache,
)

from adapters.mlx.quantized_kv import QuantizedRow


class Unkeepable(Exception):
    """A cache of a kind, or in a state, that isn't known to be kept right."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One cache, of the class called `kind`.

    arrays: without unused room, in the order of their tokens. offset: tokens it has seen.
    settings: what it was made with. parts: the caches in a list of caches.
    """

    kind: str
    arrays: tuple[mx.array | None, ...] = ()
    offset: int = 0
    settings: tuple[int, ...] = ()
    parts: tuple["Layer", ...] = ()

    @property
    def all_arrays(self) -> list[mx.array]:
        own = [array for array in self.arrays if array is not None]
        return own + [array for part in self.parts for array in part.all_arrays]

    def holds(self, tokens: int) -> bool:
        """Just so many, as far as it can be told; layers that were never used hold none."""
        told = self.kind != ArraysCache.__name__ and any(a is not None for a in self.arrays)
        own = self.offset == tokens or not told
        return own and all(part.holds(tokens) for part in self.parts)

    @property
    def whole(self) -> bool:
        """All tokens are there, so that any number of them can be left.

        mlx-lm calls chunked caches trimmable even when their front is gone, of which the tokens
        before a cut may be in need.
        """
        own = (array is None or array.shape[2] == self.offset for array in self.arrays)
        return all(own) and all(part.whole for part in self.parts)

    @property
    def layout(self) -> list[Any]:
        """What it shares with an empty cache of the same network, as JSON has it."""
        parts = [part.layout for part in self.parts]
        return [self.kind, len(self.arrays), list(self.settings), parts]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """trimmable: it can be cut to fewer tokens, and goes on as if they were all it had seen."""

    layers: tuple[Layer, ...]
    trimmable: bool

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for layer in self.layers for array in layer.all_arrays)


def freeze(caches: Sequence[Any], tokens: int) -> Snapshot:
    """The state that single-row caches are in after just so many tokens. Raises Unkeepable.

    Nothing is computed yet: `settle` does that, and frees what the caches' arrays are cut from.
    """
    layers = tuple(_freeze(cache) for cache in caches)
    if not all(layer.holds(tokens) for layer in layers):
        raise Unkeepable(f"a cache of other than {tokens} tokens")
    if not any(layer.all_arrays for layer in layers):
        raise Unkeepable("caches that hold nothing")
    can_trim = all(cache.is_trimmable() for cache in caches)
    return Snapshot(layers, can_trim and all(layer.whole for layer in layers))


def settle(snapshot: Snapshot) -> None:
    mx.async_eval([array for layer in snapshot.layers for array in layer.all_arrays])


def thaw(snapshot: Snapshot, tokens: int) -> list[Any]:
    """Caches that hold the first `tokens`: fewer than were kept only if it is trimmable."""
    return [_thaw(layer, tokens) for layer in snapshot.layers]


def layout(caches: Sequence[Any]) -> list[Any]:
    """What a network's caches are, whatever they hold. Raises Unkeepable."""
    return [_freeze(cache).layout for cache in caches]


def always_trimmable(caches: Sequence[Any]) -> bool:
    """The state at the end of a prompt serves all that begin alike: no other need be kept."""
    return all(
        always_trimmable(cache.caches)
        if type(cache) is CacheList
        else type(cache) in {KVCache, QuantizedRow}
        for cache in caches
    )


def _freeze(cache: Any) -> Layer:
    kind = type(cache)
    if kind is CacheList:
        return Layer(kind.__name__, parts=tuple(_freeze(part) for part in cache.caches))
    if kind not in _FREEZE:  # a subclass may have more state than we know of
        raise Unkeepable(kind.__name__)
    layer = _FREEZE[kind](cache)
    # Contiguous: a view would keep the memory of all that it was cut from, such as the row of a
    # batch. (MLX shares a buffer that is no more than 16 KiB larger.)
    arrays = [None if array is None else mx.contiguous(array) for array in layer.arrays]
    if any(array is not None and array.shape[0] != 1 for array in arrays):
        raise Unkeepable("a batch")
    return replace(layer, kind=kind.__name__, arrays=tuple(arrays))


def _freeze_plain(cache: Any) -> Layer:
    return Layer("", _cut((cache.keys, cache.values), cache.offset), cache.offset)


def _freeze_quantized(cache: QuantizedRow) -> Layer:
    arrays = (None,) * 6 if cache.keys is None else (*cache.keys, *cache.values)
    return Layer("", _cut(arrays, cache.offset), cache.offset, (cache.group_size, cache.bits))


def _freeze_rotating(cache: Any) -> Layer:
    """Its last tokens in their order, which is what it goes on with after a slice of prefill.

    After a slice it has more than `max_size` tokens; mlx-lm drops them when the next ones come.
    """
    if cache.keep:  # mlx-lm's models don't use it
        raise Unkeepable("a rotating cache that keeps its first tokens")
    both = (cache.keys, cache.values)
    arrays = (
        None if v is None else cache._temporal_order(v)[..., -cache.max_size :, :] for v in both
    )
    return Layer("", tuple(arrays), cache.offset, (cache.max_size,))


def _freeze_chunked(cache: Any) -> Layer:
    arrays = _cut((cache.keys, cache.values), cache.offset - cache.start_position)
    return Layer("", arrays, cache.offset, (cache.chunk_size,))


def _freeze_arrays(cache: ArraysCache) -> Layer:
    if cache.left_padding is not None or cache.lengths is not None:
        raise Unkeepable("a batch")
    return Layer("", tuple(cache.cache))


_FREEZE: dict[type[Any], Callable[[Any], Layer]] = {
    KVCache: _freeze_plain,
    QuantizedRow: _freeze_quantized,
    RotatingKVCache: _freeze_rotating,
    ChunkedKVCache: _freeze_chunked,
    ArraysCache: _freeze_arrays,
}


def _thaw(layer: Layer, tokens: int) -> Any:
    if layer.kind == CacheList.__name__:
        return CacheList(*(_thaw(part, tokens) for part in layer.parts))
    return _THAW[layer.kind](layer, min(tokens, layer.offset))


def _thaw_plain(layer: Layer, offset: int) -> Any:
    return _of(KVCache, (*_cut(layer.arrays, offset), offset))


def _thaw_quantized(layer: Layer, offset: int) -> Any:
    arrays = _cut(layer.arrays, offset)
    both = (None, None) if arrays[0] is None else (arrays[:3], arrays[3:])
    return _of(QuantizedRow, (*both, offset, *layer.settings))


def _thaw_rotating(layer: Layer, offset: int) -> Any:
    keys, values = _cut(layer.arrays, offset)  # once it has turned there are fewer to begin with
    end = 0 if keys is None else keys.shape[2]
    return _of(RotatingKVCache, (keys, values, offset, 0, *layer.settings, end))


def _thaw_chunked(layer: Layer, offset: int) -> Any:
    keys, values = _cut(layer.arrays, offset)
    start = offset - (0 if keys is None else keys.shape[2])
    return _of(ChunkedKVCache, (keys, values, offset, *layer.settings, start))


def _thaw_arrays(layer: Layer, _offset: int) -> Any:
    return _of(ArraysCache, ([copy.copy(array) for array in layer.arrays], None, None))


_THAW: dict[str, Callable[[Layer, int], Any]] = {
    KVCache.__name__: _thaw_plain,
    QuantizedRow.__name__: _thaw_quantized,
    RotatingKVCache.__name__: _thaw_rotating,
    ChunkedKVCache.__name__: _thaw_chunked,
    ArraysCache.__name__: _thaw_arrays,
}


def _of(kind: Any, state: tuple[Any, ...]) -> Any:
    """mlx-lm calls no `__init__` here, so the state must be all of it."""
    return kind.from_state(state)


def _cut(arrays: Sequence[mx.array | None], tokens: int) -> tuple[mx.array | None, ...]:
    return tuple(None if array is None else array[..., :tokens, :] for array in arrays)
