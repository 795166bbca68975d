"""mlx-lm's batched KV cache, whose room is always a whole number of steps. Worker thread only."""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import BatchKVCache, KVCache

from domain.memory import whole_steps


class AlignedBatchKVCache(BatchKVCache):
    """BatchKVCache grows by a whole step from wherever it is, and merging and filtering leave it
    anywhere: up to a step more than the KV reserve counts for each request. This one grows to the
    next multiple of a step.
    """

    keys: Any
    values: Any

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> Any:
        end = self._idx + keys.shape[2]
        if self.keys is None or end > self.keys.shape[2]:
            self.keys = _grown(self.keys, keys, self._idx, whole_steps(end))
            self.values = _grown(self.values, values, self._idx, whole_steps(end))
        return super().update_and_fetch(keys, values)  # type: ignore[no-untyped-call]

    @classmethod
    def merge(cls, rows: Sequence[KVCache]) -> "AlignedBatchKVCache":
        if not any(row.size() for row in rows):
            return cls([0] * len(rows))
        merged: AlignedBatchKVCache = super().merge(rows)  # type: ignore[no-untyped-call]
        return merged


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
