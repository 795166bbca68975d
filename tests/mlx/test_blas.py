"""Prompts through numpy's BLAS leave what MLX's own products leave: the same bits of 16, and of 32
all but the last.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models import qwen3
from mlx_lm.models.activations import swiglu

from adapters.mlx import blas, cpu_attention, cpu_layers
from adapters.mlx.cpu_layers import BlasLayers, BlasLinear
from tests.mlx.turns import KINDS, Model, prompt, uncompiled

PROMPT = prompt(1, 150)
SLICES = [PROMPT[:60], PROMPT[60:75], PROMPT[75:149]]
DTYPES = (mx.bfloat16, mx.float16, mx.float32)
SHORT = DTYPES[:2]


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """However slow it is here, and however little there is to do."""
    monkeypatch.setattr(blas, "_is_worth", lambda dtype: True)
    monkeypatch.setattr(cpu_layers, "_WORTH", 1)
    monkeypatch.setattr(cpu_attention, "_WORTH", 1)
    caches = (blas.most_terms, cpu_attention._agrees)
    for cached in caches:
        cached.cache_clear()
    with uncompiled():
        yield
    for cached in caches:
        cached.cache_clear()


def read(model: Model, layers: BlasLayers | None = None) -> list[Any]:
    """The caches after the slices."""
    caches = model.caches()
    for tokens in SLICES:
        if layers:
            with layers.on(caches):
                model.network(mx.array([tokens]), cache=caches)
        else:
            model.network(mx.array([tokens]), cache=caches)
        mx.eval([cache.state for cache in caches])
    return caches


def arrays(caches: list[Any]) -> list[mx.array]:
    states = tree_flatten([cache.state for cache in caches])
    return [array for _, array in states if isinstance(array, mx.array)]


def near(ours: mx.array, expected: mx.array) -> bool:
    """As near as sums in another order are, after a few layers."""
    if expected.dtype != mx.float32:
        return bool(mx.array_equal(ours, expected, equal_nan=True))
    allowed = 1e-3 * float(mx.max(mx.abs(mx.nan_to_num(expected))))
    return bool(mx.allclose(ours, expected, rtol=1e-3, atol=allowed, equal_nan=True))


WITHOUT_16_BITS = {"list of plain"}  # MLX has no such experts on a CPU


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (kind, dtype)
        for kind in KINDS
        for dtype in DTYPES
        if dtype == mx.float32 or kind not in WITHOUT_16_BITS
    ],
    ids=str,
)
def test_every_kind_of_cache_holds_the_same(kind: str, dtype: mx.Dtype, tmp_path: Path) -> None:
    model = Model.make(tmp_path, kind)
    model.network.set_dtype(dtype)
    expected = read(model)
    layers = BlasLayers(model.network)
    if dtype == mx.float32:
        assert layers
    after = read(model, layers)
    pairs = list(zip(arrays(after), arrays(expected), strict=True))
    assert pairs
    if kind == "quantised" and dtype == mx.float32:  # what is near may be rounded otherwise
        assert model.go_on(after, PROMPT[-1:]) == model.go_on(expected, PROMPT[-1:])
    else:
        assert all(near(ours, theirs) for ours, theirs in pairs)


def test_an_answer_is_the_same_and_decoding_is_mlx_lms(tmp_path: Path) -> None:
    model = Model.make(tmp_path, "plain")
    expected = model.answer(PROMPT)
    layers = BlasLayers(model.network)
    caches = read(model, layers)
    assert not any(type(part) is BlasLinear for part in model.network.modules())
    assert model.go_on(caches, PROMPT[-1:]) == expected


def test_layers_are_mlx_lms_again_after_a_fault(tmp_path: Path) -> None:
    model = Model.make(tmp_path, "plain")
    layers = BlasLayers(model.network)
    with pytest.raises(ValueError, match="a fault"), layers.on(model.caches()):
        raise ValueError("a fault")
    assert not any(type(part) is BlasLinear for part in model.network.modules())
    expected, after = arrays(read(model)), arrays(read(model))
    assert all(mx.array_equal(*pair) for pair in zip(after, expected, strict=True))


def test_what_no_cache_needs_is_not_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the last layer only keys and values: not its attention, nor what follows."""
    model = Model.make(tmp_path, "plain")
    layers = BlasLayers(model.network)
    products: list[tuple[int, ...]] = []
    plain = cpu_layers.rounded
    monkeypatch.setattr(
        cpu_layers, "rounded", lambda sums, dtype: products.append(sums.shape) or plain(sums, dtype)
    )
    caches = model.caches()
    with layers.on(caches):
        model.network(mx.array([PROMPT[:40]]), cache=caches)
    whole, last = 7, 3  # products of a layer; queries, keys and values
    assert len(products) == (len(caches) - 1) * whole + last


def test_a_model_that_allows_no_look_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model.make(tmp_path, "plain")
    monkeypatch.setattr(
        qwen3.MLP, "__call__", mx.compile(lambda self, x: self.down_proj(self.up_proj(x)))
    )
    mx.enable_compile()
    assert not BlasLayers(model.network)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bias", [False, True], ids=["plain", "bias"])
@pytest.mark.parametrize(("inputs", "outputs"), [(64, 96), (200, 48), (1000, 32), (64, 33)])
def test_a_layer_that_is_taken_gives_the_same(
    inputs: int, outputs: int, bias: bool, dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = nn.Linear(inputs, outputs, bias)  # type: ignore[attr-defined]
    layer.set_dtype(dtype)
    network = nn.Module()  # type: ignore[attr-defined]
    network.layers = [layer]
    monkeypatch.setattr(BlasLayers, "_works", lambda self, network: True)  # it has only layers
    layers = BlasLayers(network)
    for rows in (2, 17, 128):
        x = mx.random.normal((1, rows, inputs), dtype, key=mx.random.key(rows))
        expected = layer(x)
        with layers.on([]):
            ours = layer(x)
        assert near(ours, expected)
    assert outputs % blas.ALIGNED == 0 or not layers


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [40, 100, 447, 900])
@pytest.mark.parametrize("mask", ["causal", None, "window"])
def test_attention_gives_the_same(mask: str | None, length: int, dtype: mx.Dtype) -> None:
    if not blas.most_terms(dtype):
        dtype = mx.float32  # OpenBLAS has other kernels here
    count = 33
    queries, keys, values = (
        mx.random.normal((2, heads, size, width), dtype, key=mx.random.key(width))
        for heads, size, width in ((4, count, 32), (2, length, 32), (2, length, 48))
    )
    seen: Any = mask
    if mask == "window":
        at = mx.arange(length - count, length)[:, None] - mx.arange(length)[None]
        seen = (at >= 0) & (at < 20)
    assert cpu_attention.is_quick(queries, keys, values, seen)
    ours = cpu_attention.attend(queries, keys, values, 0.2, seen)
    expected = mx.fast.scaled_dot_product_attention(queries, keys, values, scale=0.2, mask=seen)
    assert near(ours, expected)


def test_attention_of_other_kinds_is_left_alone() -> None:
    queries, keys = mx.zeros((1, 2, 8, 32)), mx.zeros((1, 2, 40, 32))
    assert cpu_attention.is_quick(queries, keys, keys, "causal")
    assert not cpu_attention.is_quick(queries[:, :, :1], keys, keys, None)
    assert not cpu_attention.is_quick(queries, (keys, keys), (keys, keys), "causal")
    assert not cpu_attention.is_quick(queries, keys, keys, mx.zeros((8, 40)))
    assert not cpu_attention.is_quick(queries.astype(mx.bfloat16), keys, keys, "causal")
    narrow = mx.zeros((1, 2, 40, 24))
    assert not cpu_attention.is_quick(narrow, narrow, narrow, "causal")


@pytest.mark.parametrize("dtype", SHORT, ids=str)
def test_gates_of_every_number_are_the_same(dtype: mx.Dtype) -> None:
    every = mx.arange(1 << 16, dtype=mx.uint32).astype(mx.uint16).view(dtype)
    x = mx.random.normal(every.shape, dtype, key=mx.random.key(1))
    assert cpu_attention.has_table(every, x)
    with np.errstate(all="ignore"):
        ours = cpu_attention.gate(every, x)
    assert mx.array_equal(ours, swiglu(every, x), equal_nan=True)
    assert not cpu_attention.has_table(every.astype(mx.float32), x)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_that_differ_are_noticed(dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = np.matmul

    def otherwise(left: Any, right: Any) -> Any:
        sums = plain(left, right)
        if sums.shape[-1] == 1024:
            sums[3, 5] *= 1.01
        return sums

    monkeypatch.setattr(np, "matmul", otherwise)
    assert blas.most_terms(dtype) == 0


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_quicker_is_not_done(dtype: mx.Dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blas, "_is_worth", lambda dtype: False)
    assert blas.most_terms(dtype) == 0


def test_only_16_bits_are_there_twice(tmp_path: Path) -> None:
    model = Model.make(tmp_path, "plain")
    assert BlasLayers(model.network).copied == 0
    model.network.set_dtype(mx.bfloat16)
    layers = BlasLayers(model.network)
    inside = sum(
        part.weight.nbytes
        for layer in model.network.layers
        for part in layer.modules()
        if isinstance(part, nn.Linear)  # type: ignore[attr-defined]
    )
    assert layers.copied == (2 * inside if layers else 0)
