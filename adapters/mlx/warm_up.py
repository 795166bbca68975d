"""What is done once after a load, so that no request pays for it. Worker thread only."""

import time
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache

from adapters.mlx import gpu
from adapters.mlx.batched_kv import merge
from adapters.mlx.cpu_layers import BlasLayers
from adapters.mlx.model import LoadedModel
from adapters.mlx.rows import Rows
from adapters.mlx.trial import make_rows
from domain.batching import least_slice

# MLX's CUDA build compiles kernels at their first use, others for other numbers of tokens: nearly a
# minute for a model of 4 bits on an H100, during which the thread gives no sign of life. They are
# kept on disk for the next process.
_TOKENS = (1, 2, 8, 16, 24, 32, 64, 128, 256)
_SMALL = 64  # tokens
_TIMES = 3

# Slices by BLAS wait as often whatever their length, so there are fewer and longer ones. Those who
# decode wait no longer than for MLX's own of half the length.
_BLAS_PACE = 4.0


@dataclass(frozen=True, slots=True)
class Readied:
    """rows: what a batch of this model holds its requests in. least_slice: tokens of a prompt,
    fewer of which take as long. pace: how many decode steps' time a slice of a short prompt may
    take. layers: on a CPU, for prompts.
    """

    rows: Rows
    least_slice: int
    pace: float
    layers: BlasLayers | None = None


def ready(model: LoadedModel, step_size: int) -> Readied:
    """step_size: the most tokens of a slice."""
    if not gpu.launch_bound():
        layers = BlasLayers(model.network) if gpu.on_cpu() else None
        pace = _BLAS_PACE if layers else gpu.prefill_pace(long=False)
        return Readied(Rows(model.network), gpu.least_slice(), pace, layers)
    rows = make_rows(model)
    for tokens in _TOKENS:
        _seconds(model.network, tokens)
    _seconds(model.network, _SMALL, rows=2)
    _together(model)
    pace = gpu.prefill_pace(long=False)
    return Readied(rows, _least_slice(model.network, step_size), pace)


def _together(model: LoadedModel) -> None:
    """Two prompts of different lengths."""
    caches = [
        merge(layers) for layers in zip(model.make_caches(), model.make_caches(), strict=True)
    ]
    for cache in caches:
        cache.prepare(lengths=[_SMALL, _SMALL - 1], right_padding=[0, 1])
    model.network(mx.zeros((2, _SMALL), dtype=mx.uint32), cache=caches)
    for cache in caches:
        cache.finalize()
    mx.eval([cache.state for cache in caches])


def _least_slice(network: Any, most: int) -> int:
    if most <= _SMALL:
        return most
    small, large = ((tokens, _best(network, tokens)) for tokens in (_SMALL, most))
    return least_slice(small, large, most)


def _best(network: Any, tokens: int) -> float:
    """Seconds: the first of a length takes longer."""
    return min(_seconds(network, tokens) for _ in range(_TIMES))


def _seconds(network: Any, tokens: int, rows: int = 1) -> float:
    """For prompts of so many tokens."""
    begun = time.perf_counter()
    caches = make_prompt_cache(network)
    network(mx.zeros((rows, tokens), dtype=mx.uint32), cache=caches)
    mx.eval([cache.state for cache in caches])
    return time.perf_counter() - begun
