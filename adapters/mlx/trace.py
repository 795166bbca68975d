"""The graph of a pass through a network, with the size of every array. Nothing is computed."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map, tree_unflatten

from adapters.mlx.files import leaves
from adapters.mlx.graph import Graph, Operation


def record(network: Any, caches: Sequence[Any], rows: int, tokens: int, *, logits: bool) -> Graph:
    """The graph of `tokens` tokens of `rows` requests. Nothing is computed or read.

    logits: they are wanted, as in decoding; a prefill asks for the caches alone. The caches are
    spent: they keep the shapes, and hold no data. Raises what the network raises, and ValueError
    where it asks for a value.
    """
    names, weights = zip(*tree_flatten(network.parameters()), strict=True)
    flat = leaves(caches)
    held = [array for cache in flat for array in _arrays(cache)]
    graph = Graph()

    def run(inputs: mx.array, *given: mx.array) -> list[mx.array]:
        network.update(tree_unflatten(list(zip(names, given, strict=False))))
        fresh = iter(given[len(names) :])
        for cache in flat:
            cache.state = tree_map(
                lambda leaf: next(fresh) if isinstance(leaf, mx.array) else leaf, cache.state
            )
        out = network(inputs, cache=caches)
        said = [_logprobs(out)] if logits else []
        return said + [array for cache in flat for array in _arrays(cache)]

    try:
        inputs = mx.zeros((rows, tokens), mx.int32)
        reader = _reader(graph, skipped=1 + len(names))
        mx.export_function(reader, run, inputs, *weights, *held)
        graph.said = next(iter(graph.results.values())) if logits else 0
    finally:
        network.update(tree_unflatten(list(zip(names, weights, strict=True))))
    return graph


def _logprobs(logits: mx.array) -> mx.array:
    last = logits[:, -1, :]
    return last - mx.logsumexp(last, axis=-1, keepdims=True)


def _arrays(cache: Any) -> list[mx.array]:
    found: list[tuple[str, Any]] = tree_flatten(cache.state)  # type: ignore[assignment]
    return [leaf for _, leaf in found if isinstance(leaf, mx.array)]


def _reader(graph: Graph, skipped: int) -> Callable[[dict[str, Any]], None]:
    """skipped: the first of the inputs, which aren't caches."""

    def read(part: dict[str, Any]) -> None:
        match part["type"]:
            case "inputs":
                graph.caches = dict(_sizes(part["inputs"][skipped:]))
            case "outputs":
                graph.results = dict(_sizes(part["outputs"]))
            case "primitive":
                inputs = [name for name, *_ in part["inputs"]]
                outputs = list(_sizes(part["outputs"]))
                graph.operations.append(Operation(part["name"], inputs, outputs))

    return read


def _sizes(described: Iterable[tuple[str, tuple[int, ...], mx.Dtype]]) -> list[tuple[str, int]]:
    return [(name, math.prod(shape) * dtype.size) for name, shape, dtype in described]
