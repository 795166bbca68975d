"""Prompts in two parts at the same time leave every kind of cache as one part does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from adapters.mlx import lanes
from tests.mlx.turns import KINDS, Model, prompt, uncompiled

PROMPT = prompt(1, 90)  # far longer than windows and chunks, which are of 16 tokens
SLICES = [PROMPT[:40], PROMPT[40:80], PROMPT[80:89]]


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Model]:
    with uncompiled():
        yield Model.make(tmp_path, str(request.param))


def parts(model: Model, caches: list[Any]) -> list[int]:
    """How many tokens went through the network at once, for all slices."""
    lengths: list[int] = []

    def network(tokens: mx.array, cache: list[Any]) -> Any:
        lengths.append(tokens.shape[1])
        return model.network(tokens, cache=cache)

    for tokens in SLICES:
        lanes.forward(network, tokens, caches)
        mx.eval([cache.state for cache in caches])
    return lengths


def test_answers_are_those_of_one_part(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    caches = model.caches()
    assert parts(model, caches) == [20, 20, 20, 20, 9]  # so few aren't worth it
    assert model.go_on(caches, PROMPT[-1:]) == model.answer(PROMPT)


def test_one_core_computes_one_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    model = Model.make(tmp_path, "plain")
    assert parts(model, model.caches()) == [40, 40, 9]
