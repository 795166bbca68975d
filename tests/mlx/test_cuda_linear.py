"""Layers that are quick for few rows: all that can be without CUDA."""

import mlx.core as mx
from mlx import nn

from adapters.mlx.cuda_linear import NarrowLinear, narrow, widen


def test_only_plain_layers_that_fit_are_narrowed_and_all_are_widened_again() -> None:
    network = nn.Sequential(  # type: ignore[attr-defined]
        nn.Linear(64, 32, bias=False),  # type: ignore[attr-defined]
        nn.Linear(64, 32),  # type: ignore[attr-defined]
        nn.Linear(64, 40, bias=False),  # type: ignore[attr-defined]
        nn.Linear(40, 32, bias=False),  # type: ignore[attr-defined]
        nn.Linear(4096, 8192, bias=False),  # type: ignore[attr-defined]
    )
    network.set_dtype(mx.bfloat16)
    narrow(network)
    assert [type(layer) is NarrowLinear for layer in network.layers] == [True, *[False] * 4]
    widen(network)
    assert not any(type(layer) is NarrowLinear for layer in network.layers)


def test_one_row_and_many_are_computed_as_before() -> None:
    layer = nn.Linear(64, 32, bias=False)  # type: ignore[attr-defined]
    layer.set_dtype(mx.bfloat16)
    inputs = [mx.random.normal((rows, 64)).astype(mx.bfloat16) for rows in (1, 33)]
    expected = [layer(x) for x in inputs]
    narrow(layer)
    for x, out in zip(inputs, expected, strict=True):
        assert mx.array_equal(layer(x), out)
