"""What is expected of steps and slices, after what was measured."""

import pytest

from adapters.mlx.pace import SliceSize, StepTimes


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
