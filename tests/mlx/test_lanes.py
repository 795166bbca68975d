"""Prompts in two parts at the same time leave every kind of cache as one part does."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from adapters.mlx import lanes
from adapters.mlx.lanes import Lanes
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

    own = Lanes()
    for tokens in SLICES:
        own.forward(network, tokens, caches, opens=True)
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


class Layers:
    """Whether they are on."""

    def __init__(self) -> None:
        self.are_on = False

    @contextmanager
    def on(self, caches: list[Any]) -> Iterator[None]:
        self.are_on = True
        yield
        self.are_on = False


class Machine:
    """A network that takes its time: `alone` seconds for one part, `together` for each of two,
    `blas` with BLAS.
    """

    def __init__(self, alone: float, together: float, blas: float = 0.0) -> None:
        self.alone, self.together, self.blas = alone, together, blas
        self.layers = Layers()
        self.now = 0.0

    def ways(self, own: Lanes, slices: int, *, opens: bool = True) -> list[int]:
        """The number of parts of each slice; 3 is BLAS."""
        ways = []
        for _ in range(slices):
            calls: list[int] = []
            own.forward(
                lambda tokens, cache, calls=calls: self.compute(tokens, calls), [1] * 32, [], opens
            )
            ways.append(len(calls))
        return ways

    def compute(self, tokens: mx.array, calls: list[int]) -> None:
        calls.append(tokens.size)
        if self.layers.are_on:
            calls += [0, 0]
            self.now += self.blas
        else:
            self.now += self.alone if tokens.size == 32 else self.together


def test_the_quicker_way_is_taken_and_the_other_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, own = Machine(alone=1.0, together=0.3), Lanes()
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(lanes, "perf_counter", lambda: machine.now)
    assert machine.ways(own, 32) == ([2] * 15 + [1]) * 2
    machine.together = 0.9  # the other core is busy
    assert machine.ways(own, 32)[4:] == [1] * 11 + [2] + [1] * 15 + [2]
    machine.together = 0.3
    assert machine.ways(own, 32) == [1] * 15 + [2] + [2] * 15 + [1]
    assert machine.ways(own, 160, opens=False) == [2] * 160  # amid a prompt nothing is tried


def test_blas_is_taken_where_it_is_quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(alone=1.0, together=0.3, blas=0.4)
    own = Lanes(machine.layers)  # type: ignore[arg-type]
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(lanes, "perf_counter", lambda: machine.now)
    assert machine.ways(own, 32) == ([3] * 15 + [2]) * 2
    machine.together = 0.15
    assert machine.ways(own, 32) == [3] * 15 + [2] * 16 + [3]
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert machine.ways(own, 14) == [3] * 14


def test_few_tokens_are_not_worth_blas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    model = Model.make(tmp_path, "plain")
    layers = Layers()
    seen: list[tuple[int, bool]] = []

    def network(tokens: mx.array, cache: list[Any]) -> Any:
        seen.append((tokens.shape[1], layers.are_on))
        return model.network(tokens, cache=cache)

    own = Lanes(layers)  # type: ignore[arg-type]
    caches = model.caches()
    for tokens in (PROMPT[:8], PROMPT[8:30], PROMPT[30:60]):
        own.forward(network, tokens, caches, opens=True)
    assert seen == [(8, False), (11, False), (11, False), (30, True)]
