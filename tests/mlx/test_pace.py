"""What is expected of steps and slices, after what was measured."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
from mlx_lm.models.cache import KVCache

from adapters.mlx import prefill
from adapters.mlx.lanes import Lanes
from adapters.mlx.model import LoadedModel
from adapters.mlx.pace import SliceSize, StepTimes
from adapters.mlx.prefill import PrefillOptions, Prefills
from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.request import Request


def test_nothing_is_expected_before_anything_was_measured() -> None:
    assert StepTimes().seconds(8) == 0


def test_a_step_takes_no_longer_than_a_wider_one() -> None:
    steps = StepTimes()
    steps.add(4, 9.0)  # compiled kernels
    steps.add(8, 0.02)
    assert steps.seconds(4) == steps.seconds(6) == 0.02
    assert steps.seconds(32) == 0.02  # the widest there was


def test_steps_that_had_longer_rows_say_little_of_those_to_come() -> None:
    steps = StepTimes()
    steps.add(9, 0.9)  # with a row of thousands of tokens
    steps.add(8, 0.016)
    assert steps.ahead(8, 9) == pytest.approx(0.018)
    assert steps.ahead(8, 8) == 0.016
    steps.add(32, 0.03)
    assert steps.ahead(8, 32) == 0.03  # less than four times that of 8


def test_the_size_of_slices_stays_within_its_bounds() -> None:
    size = SliceSize(first=64, most=100)
    for _ in range(10):
        size.measured(size.tokens, 0.001, 1.0)
    assert size.tokens == 100
    size.measured(100, 9.0, 1.0)
    assert size.tokens == 50


def prompt(tokens: list[int]) -> Request:
    request = SimpleNamespace(scope="", known=tokens, boundaries=(), cached=0, preempted=False)
    return cast("Request", request)


def test_only_where_short_prompts_wait_do_slices_take_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0

    def compute(self: Lanes, network: Any, tokens: list[int], *_: Any) -> None:
        nonlocal now
        now += 0.001 * len(tokens)

    monkeypatch.setattr(Lanes, "forward", compute)
    monkeypatch.setattr(prefill.time, "perf_counter", lambda: now)
    model = cast("LoadedModel", SimpleNamespace(make_caches=lambda: [KVCache()], network=None))
    options = PrefillOptions(2048, pace=2.0, long_pace=1.0, width=1)
    prefills = Prefills(model, options, Lanes(), PrefixCache(0))

    def slices(count: int) -> list[int]:
        """Tokens of each; a decode step takes what 100 of them take."""
        sizes = []
        for _ in range(count):
            before = prefills.tokens
            list(prefills.run(0.1))
            sizes.append(prefills.tokens - before)
        return sizes

    prefills.add(prompt(list(range(5000))))
    assert 90 <= max(slices(20)[10:]) <= 126
    prefills.add(prompt(list(range(9000, 10000))))
    assert 180 <= max(slices(7)) <= 251
    slices(10)  # the short one is done by then
    assert max(slices(5)) <= 126
