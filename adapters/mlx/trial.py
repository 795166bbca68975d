"""How the rows of a model's batch are held: tried with the model itself. Worker thread only."""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import KVCache

from adapters.mlx.batched_kv import merge
from adapters.mlx.cuda import CudaKernels
from adapters.mlx.cuda_linear import narrow, widen
from adapters.mlx.model import LoadedModel
from adapters.mlx.rows import Rows
from adapters.mlx.slots import SlotKernels, SlottedRows

logger = logging.getLogger("portico.engine")

_PROMPTS = ([1, 2, 3, 4, 5], [6, 7])
# What a model raises that asks more of a cache or of attention than there is here.
REFUSALS = (AttributeError, IndexError, RuntimeError, TypeError, ValueError)
_NEAR = 0.05  # of the largest logit: bfloat16 in another order gives 0.01


def make_rows(model: LoadedModel) -> Rows:
    """On CUDA: in places of their own, if the model's caches and its attention allow it."""
    if model.draft or model.kv:
        return Rows(model.network)
    slotted = slotted_rows(
        model.network, model.make_caches(), CudaKernels(), partial(narrow, model.network)
    )
    if slotted is None:
        widen(model.network)
    return slotted or Rows(model.network)


def slotted_rows(
    network: Any,
    caches: Sequence[Any],
    kernels: SlotKernels,
    quicken: Callable[[], None] = lambda: None,
) -> SlottedRows | None:
    """None where they would give other answers, or none. caches: of one request. quicken: what
    else is done to the network, and tried with it.
    """
    if not all(type(cache) is KVCache for cache in caches):
        return None
    try:
        return _try(network, len(caches), kernels, quicken)
    except REFUSALS as error:
        logger.info("the rows of this model's batches can't keep their places: %s", error)
        return None


def _try(
    network: Any, layers: int, kernels: SlotKernels, quicken: Callable[[], None]
) -> SlottedRows | None:
    """Two steps of two rows of different lengths, both ways."""
    computed = [[KVCache() for _ in range(layers)] for _ in _PROMPTS]
    for prompt, caches in zip(_PROMPTS, computed, strict=True):
        network(mx.array([prompt]), cache=caches)
    slotted = SlottedRows(network, kernels, computed[0])
    expected = _steps(Rows(network), computed)
    quicken()
    off = mx.max(mx.abs(_steps(slotted, computed) - expected))
    slotted.stay([])
    return slotted if off <= _NEAR * mx.max(mx.abs(expected)) else None


def _steps(rows: Rows, computed: Sequence[list[KVCache]]) -> mx.array:
    """The logits after the last."""
    rows.join([merge(states) for states in zip(*computed, strict=True)])
    for token in (8, 9):
        logits = rows.forward(mx.array([[token]] * len(computed), dtype=mx.uint32))
        mx.eval(logits)
    return logits.astype(mx.float32)
