"""mlx-lm's batched KV cache, with room in whole steps and padding that Python knows.

Worker thread only.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache

from domain.memory import whole_steps


class AlignedBatchKVCache(BatchKVCache):
    """BatchKVCache grows by a whole step from wherever it is, and merging and filtering leave it
    anywhere: up to a step more than the KV reserve counts for each request. This one grows to the
    next multiple of a step.

    BatchKVCache also asks the device for its padding whenever a row leaves or is copied, and so
    waits for the step under way, in every layer. This one keeps the numbers in `pads` as well.
    """

    keys: Any
    values: Any

    def __init__(self, left_padding: Sequence[int]) -> None:
        super().__init__(list(left_padding))
        self.pads = list(left_padding)
        self._right_pads: list[int] = []

    @property
    def begins(self) -> list[int]:
        return self.pads

    @property
    def ends(self) -> list[int]:
        return [self._idx] * len(self.pads)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        end = self._idx + keys.shape[2]
        if self.keys is None or end > self.keys.shape[2]:
            self.keys = _grown(self.keys, keys, self._idx, whole_steps(end))
            self.values = _grown(self.values, values, self._idx, whole_steps(end))
        return super().update_and_fetch(keys, values)  # type: ignore[no-untyped-call]

    def make_mask(self, N: int, return_array: bool = False, **kwargs: Any) -> Any:
        """None, which attention is quickest with, where one token of each row sees all before."""
        if N == 1 and not return_array and not any(self.pads) and not any(kwargs.values()):
            return None
        return super().make_mask(N, return_array, **kwargs)

    def prepare(
        self, *, left_padding: Any = None, lengths: Any = None, right_padding: Any = None
    ) -> None:
        super().prepare(left_padding=left_padding, lengths=lengths, right_padding=right_padding)  # type: ignore[no-untyped-call]
        self._add(left_padding or [])
        self._right_pads = list(right_padding or [])

    def finalize(self) -> None:
        super().finalize()  # type: ignore[no-untyped-call]
        self._add(self._right_pads)
        self._right_pads = []

    def filter(self, batch_indices: Sequence[int]) -> None:
        keep = mx.array(list(batch_indices))
        self.pads = [self.pads[row] for row in batch_indices]
        unused = min(self.pads)
        self.offset = self.offset[keep]
        self.left_padding = self.left_padding[keep]
        if self.keys is not None:
            self.keys = self.keys[keep][..., unused:, :]
            self.values = self.values[keep][..., unused:, :]
        if unused:
            self.pads = [pad - unused for pad in self.pads]
            self.left_padding = self.left_padding - unused
            self._idx -= unused

    def extend(self, other: "AlignedBatchKVCache") -> None:
        pads = [*self.pads, *other.pads]
        if self.keys is not None or other.keys is not None:  # else mlx-lm moves nothing
            end = max(self._idx, other._idx)
            pads = [pad + end - cache._idx for cache in (self, other) for pad in cache.pads]
        super().extend(other)  # type: ignore[no-untyped-call]
        self.pads = pads

    def extract(self, idx: int) -> KVCache:
        row = KVCache()
        if self.keys is not None:
            start = self.pads[idx]
            row.keys = mx.contiguous(self.keys[idx : idx + 1, :, start : self._idx])
            row.values = mx.contiguous(self.values[idx : idx + 1, :, start : self._idx])
            row.offset = self._idx - start
        return row

    @classmethod
    def merge(cls, rows: Sequence[KVCache]) -> "AlignedBatchKVCache":
        if not any(row.size() for row in rows):
            return cls([0] * len(rows))
        merged: AlignedBatchKVCache = super().merge(rows)  # type: ignore[no-untyped-call]
        return merged

    def _add(self, padding: Sequence[int]) -> None:
        if padding:
            self.pads = [pad + more for pad, more in zip(self.pads, padding, strict=True)]


class RaggedKV:
    """Prompts that were computed together from their beginnings, padded at their ends. Moving them
    to where a batch has its padding takes many operations, and rows that have places of their own
    can be copied from anywhere: `begins` to `ends`.
    """

    keys: Any
    values: Any

    def __init__(self, computed: KVCache, lengths: Sequence[int]) -> None:
        self.keys, self.values = computed.keys, computed.values
        self.begins, self.ends = [0] * len(lengths), list(lengths)

    def extract(self, idx: int) -> KVCache:
        row = KVCache()
        row.offset = self.ends[idx]
        row.keys = mx.contiguous(self.keys[idx : idx + 1, :, : row.offset])
        row.values = mx.contiguous(self.values[idx : idx + 1, :, : row.offset])
        return row


def merge(rows: Sequence[Any]) -> Any:
    """Single-row caches of one layer into a batched one."""
    if all(type(row) is KVCache for row in rows):
        return AlignedBatchKVCache.merge(rows)
    return rows[0].merge(list(rows))


def _grown(old: mx.array | None, new: mx.array, used: int, room: int) -> mx.array:
    rows, heads, _, width = new.shape
    if old is None:
        return mx.zeros((rows, heads, room, width), new.dtype)
    more = mx.zeros((rows, heads, room - used, width), new.dtype)
    return mx.concatenate([old[..., :used, :], more], axis=2)
