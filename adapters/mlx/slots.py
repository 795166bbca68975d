"""Rows that keep their places while they decode, for devices where a step takes what the CPU
needs to launch it: MLX's CUDA build. Worker thread only.

A batch of mlx-lm's caches has another shape whenever a row joins or leaves, and rows of different
lengths need a mask, for which MLX's attention takes several kernels. Here the shape stays: free
places are computed with the others and nobody looks at them. So one step is like the next, and
MLX can replay it (`mx.compile`) without asking Python for every operation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from adapters.mlx.routing import route
from adapters.mlx.rows import Rows
from domain.batching import places
from domain.memory import whole_steps

_PATIENCE = 16  # steps with more room than is needed, after which it is given back


Span = tuple[int, int, int]  # of a row: its place, and from where to where its tokens are


class SlotKernels(Protocol):
    """What is done to one layer. kept: keys and values, [places, heads, room, width] each. What is
    returned takes their place, and may be the same arrays, written into.
    """

    def attend(
        self,
        queries: mx.array,
        new: Sequence[mx.array],
        kept: Sequence[mx.array],
        ends: mx.array,
        scale: float,
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Put the new keys and values at `ends`, one for each place, and attend to all up to
        there. The outputs, keys, values.
        """

    def put(
        self,
        kept: Sequence[mx.array],
        rows: Sequence[mx.array],
        where: Sequence[Span],
    ) -> tuple[mx.array, mx.array, mx.array]:
        """Put the tokens of each row at the beginning of its place. Keys, values, and what has to
        be evaluated before these are used.
        """


class SlotLayer:
    """One layer during a step, in the role of a cache."""

    def __init__(
        self, kernels: SlotKernels, keys: mx.array, values: mx.array, ends: mx.array
    ) -> None:
        self._kernels = kernels
        self.keys, self.values = keys, values
        self.offset = ends

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> None:
        if N > 1 or return_array or any(kwargs.values()):
            raise ValueError("only one token of each row, which sees all before it")

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        return keys, values  # `attend` puts them with the others

    def attend(
        self,
        queries: mx.array,
        keys: mx.array,
        values: mx.array,
        *,
        scale: float,
        mask: Any,
        sinks: mx.array | None,
    ) -> mx.array:
        """In place of mlx-lm's `scaled_dot_product_attention`, which knows no lengths."""
        if mask is not None or sinks is not None:
            raise ValueError("a mask or sinks")
        kept = (self.keys, self.values)
        out, self.keys, self.values = self._kernels.attend(
            queries, (keys, values), kept, self.offset, scale
        )
        return out


class SlottedRows(Rows):
    """A step is of one token for each row. like: of each layer, one row's keys and values."""

    takes_ragged = True
    take_tokens_back = False

    def __init__(self, network: Any, kernels: SlotKernels, like: Sequence[KVCache]) -> None:
        super().__init__(network)
        route(network)
        self._kernels = kernels
        self._like = [(_shape(cache.keys), _shape(cache.values)) for cache in like]
        # Not of a method: what is compiled is never collected if it leads back to itself.
        self._step = mx.compile(partial(_step, network, kernels))
        self._keys: list[mx.array] = []  # of each layer: [places, heads, room, width]
        self._values: list[mx.array] = []
        self._lengths: list[int] = []  # tokens of each row,
        self._slots: list[int] = []  # and its place
        self._ends = self._active = mx.array(0)  # of each place: tokens, and whether it is taken
        self._row_of = self._slot_of = mx.array(0)
        self._idle = 0  # steps with room to spare

    @property
    def taken(self) -> list[mx.array]:
        """All keys and values."""
        return [*self._keys, *self._values]

    def join(self, caches: list[Any]) -> None:
        begins, ends = caches[0].begins, caches[0].ends
        lengths = [end - begin for begin, end in zip(begins, ends, strict=True)]
        count = len(self._slots) + len(lengths)
        room = whole_steps(max(self._lengths + lengths) + 1)
        if not self._keys:
            self._make(places(count), room)
        elif count > self._places or room > self._room:
            self._resize(max(places(count), self._places), max(room, self._room))
        free = [slot for slot in range(self._places) if slot not in self._slots]
        slots = free[: len(lengths)]
        if any(lengths):
            self._put(caches, list(zip(slots, begins, ends, strict=True)))
        self._slots += slots
        self._lengths += lengths
        self._note()

    def stay(self, rows: Sequence[int]) -> None:
        self._slots = [self._slots[row] for row in rows]
        self._lengths = [self._lengths[row] for row in rows]
        if rows:
            self._note()
        else:
            self._keys, self._values = [], []

    def extract(self, row: int) -> list[Any]:
        return [self._extract(row, *layer) for layer in zip(self._keys, self._values, strict=True)]

    def forward(self, inputs: mx.array) -> mx.array:
        """inputs: [rows, 1]."""
        self._fit()
        logits, self._ends, self._keys, self._values = self._step(
            inputs[self._row_of], self._ends, self._active, self._keys, self._values
        )
        self._lengths = [length + 1 for length in self._lengths]
        return logits[self._slot_of]

    @property
    def _places(self) -> int:
        return self._keys[0].shape[0]

    @property
    def _room(self) -> int:
        return self._keys[0].shape[2]

    def _extract(self, row: int, keys: mx.array, values: mx.array) -> KVCache:
        slot, cache = self._slots[row], KVCache()
        cache.offset = self._lengths[row]
        cache.keys = mx.contiguous(keys[slot : slot + 1, :, : cache.offset])
        cache.values = mx.contiguous(values[slot : slot + 1, :, : cache.offset])
        return cache

    def _fit(self) -> None:
        """Make room for the next token, and give back what was not needed for a while."""
        wanted, room = places(len(self._slots)), whole_steps(max(self._lengths) + 1)
        if room > self._room:
            self._resize(self._places, room)
        self._idle = self._idle + 1 if (wanted, room) < (self._places, self._room) else 0
        if self._idle > _PATIENCE:
            self._resize(wanted, room)
            self._note()

    def _put(self, caches: list[Any], where: Sequence[Span]) -> None:
        put = []
        for layer, cache in enumerate(caches):
            kept, rows = (self._keys[layer], self._values[layer]), (cache.keys, cache.values)
            done = self._kernels.put(kept, rows, where)
            self._keys[layer], self._values[layer] = done[:2]
            put.append(done[2])
        mx.async_eval(put)

    def _make(self, count: int, room: int) -> None:
        def zeros(like: _Shape) -> mx.array:
            heads, width, dtype = like
            return mx.zeros((count, heads, room, width), dtype)

        self._keys = [zeros(keys) for keys, _ in self._like]
        self._values = [zeros(values) for _, values in self._like]
        mx.eval(self.taken)

    def _resize(self, count: int, room: int) -> None:
        """Rows move only where there is no place for them any more."""
        move: mx.array | None = None
        if count < self._places:
            move = mx.array(self._slots + [0] * (count - len(self._slots)))
            self._slots = list(range(len(self._slots)))
        for arrays in (self._keys, self._values):
            for layer, array in enumerate(arrays):  # one after the other, or it is all there twice
                arrays[layer] = _resized(array, move, count, room)
                mx.eval(arrays[layer])
        self._idle = 0

    def _note(self) -> None:
        """Tell the device what is where."""
        ends, active, row_of = ([0] * self._places for _ in range(3))
        for row, slot in enumerate(self._slots):
            ends[slot], active[slot], row_of[slot] = self._lengths[row], 1, row
        self._ends, self._active = mx.array(ends), mx.array(active)
        self._row_of, self._slot_of = mx.array(row_of), mx.array(self._slots)


_Shape = tuple[int, int, mx.Dtype]  # heads, their width


def _shape(array: Any) -> _Shape:
    return array.shape[1], array.shape[3], array.dtype


def _step(
    network: Any,
    kernels: SlotKernels,
    tokens: mx.array,
    ends: mx.array,
    active: mx.array,
    keys: list[mx.array],
    values: list[mx.array],
) -> tuple[mx.array, mx.array, list[mx.array], list[mx.array]]:
    layers = [SlotLayer(kernels, *layer, ends) for layer in zip(keys, values, strict=True)]
    logits = network(tokens, cache=layers)
    return logits, ends + active, [one.keys for one in layers], [one.values for one in layers]


def _resized(array: mx.array, move: mx.array | None, count: int, room: int) -> mx.array:
    if move is not None:
        array = array[move]
    array = array[:, :, :room]
    more, longer = count - array.shape[0], room - array.shape[2]
    return mx.contiguous(mx.pad(array, [(0, more), (0, 0), (0, longer), (0, 0)]))
