"""The memory profile of a model, from its files and before any load. On a thread of its own.

MLX is lazy: a network can be built without its weights being read, and a pass through it drawn up
without being computed. So all sizes are those of the very arrays that a load would make.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_lm.models.cache import BatchKVCache, make_prompt_cache
from mlx_lm.utils import load_model

from adapters.mlx import gpu
from adapters.mlx.files import check, require_batching
from adapters.mlx.mailbox import MlxOptions
from adapters.mlx.model import weight_bytes
from adapters.mlx.probe import UNDRAWABLE, MakeCaches, Probe, Width, slots
from adapters.mlx.quantized_kv import plan_quantization
from domain.memory import CacheLayers, MemoryProfile
from domain.models import ModelCard


def profile(card: ModelCard, kv_bits: int | None, options: MlxOptions) -> MemoryProfile:
    """Raises InvalidRequest when the caches can't be kept at `kv_bits`, ModelUnusable, and
    whatever mlx-lm raises for models that it can't build.
    """
    check(card.location)
    network, config = load_model(card.location, lazy=True, trust_remote_code=False)
    require_batching(make_prompt_cache(network))
    probe = Probe(network, _width(options), _caches(network, kv_bits))
    layers = [_layer(cache) for cache in probe.caches]
    if not probe.followed:
        layers = _completed(layers, probe.caches, config)
    fixed, per_token = probe.prefill(card.context_length)
    return MemoryProfile(weight_bytes(network), tuple(_groups(layers)), fixed, per_token)


def _caches(network: Any, kv_bits: int | None) -> MakeCaches:
    """Raises InvalidRequest for models whose caches can't be quantised."""
    if kv_bits is not None:
        try:
            plan = plan_quantization(network, kv_bits, evaluate=False)
        except UNDRAWABLE:
            pass  # the load will tell
        else:
            return lambda: plan.make_caches(network)
    return lambda: make_prompt_cache(network)


def _width(options: MlxOptions) -> Width:
    """Prompts that are computed in one go have no more tokens together than one slice may."""
    step = options.prefill_step_size or gpu.prefill_step_size()
    return Width(1, step, options.max_batch_size)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One cache of one request; `per_token` and `fixed`, which doesn't grow, are in bytes."""

    per_token: int = 0
    window: int | None = None
    fixed: int = 0


def _completed(
    layers: Sequence[_Layer], caches: Sequence[Any], config: dict[str, Any]
) -> list[_Layer]:
    """Layers that no pass came to are like others of their kind, or as the config says."""
    pairs = list(zip(layers, caches, strict=True))
    seen = {type(cache): layer for layer, cache in pairs if not cache.empty()}
    like = seen or {BatchKVCache: _configured(config)}
    return [
        layer if not cache.empty() else like.get(type(cache), _Layer()) for layer, cache in pairs
    ]


def _layer(cache: Any) -> _Layer:
    if cache.empty():
        return _Layer()
    if not hasattr(cache, "keys"):
        return _Layer(fixed=cache.nbytes // cache.batch_size)
    rows = cache.offset.shape[0]
    return _Layer(cache.nbytes // (rows * slots(cache)), getattr(cache, "max_size", None))


def _configured(config: dict[str, Any]) -> _Layer:
    """Half-precision heads, by the names that most configs use."""
    heads = config.get("num_attention_heads", 1)
    width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return _Layer(2 * 2 * config.get("num_key_value_heads", heads) * width)


def _groups(layers: Sequence[_Layer]) -> Iterator[CacheLayers]:
    """Layers that grow alike, together; state that doesn't grow comes last."""
    growing: Counter[int | None] = Counter()
    for layer in layers:
        growing[layer.window] += layer.per_token
    for window, per_token in growing.items():
        if per_token:
            yield CacheLayers(per_token, window)
    fixed = sum(layer.fixed for layer in layers)
    if fixed:
        yield CacheLayers(fixed=fixed)
