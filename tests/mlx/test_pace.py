"""What is expected of steps and slices, after what was measured."""

from adapters.mlx.pace import SliceSize, StepTimes


def test_nothing_is_expected_before_anything_was_measured() -> None:
    assert StepTimes().seconds(8) == 0


def test_a_step_takes_no_longer_than_a_wider_one() -> None:
    steps = StepTimes()
    steps.add(4, 9.0)  # compiled kernels
    steps.add(8, 0.02)
    assert steps.seconds(4) == steps.seconds(6) == 0.02
    assert steps.seconds(32) == 0.02  # the widest there was


def test_the_size_of_slices_stays_within_its_bounds() -> None:
    size = SliceSize(first=64, most=100)
    for _ in range(10):
        size.took(size.tokens, 0.001)
        size.adapt(1.0)
    assert size.tokens == 100
    for _ in range(20):
        size.took(size.tokens, 9.0 * size.tokens)
        size.adapt(1.0)
    assert size.tokens <= 20


def test_one_slow_slice_says_nothing_of_the_others() -> None:
    """As the first of a shape on a GPU."""
    size = SliceSize(first=64, most=2048)
    for tokens in (64, 100, 200, 400, 64, 100, 200, 400):
        size.took(tokens, tokens * 1e-4)
    size.took(64, 9.0)
    size.adapt(0.02)
    assert size.tokens >= 128


def test_slices_that_cost_about_the_same_whatever_their_size_grow() -> None:
    """As on a GPU, where more and shorter ones would only make all wait more often."""
    size = SliceSize(first=64, most=2048)
    for _ in range(30):
        size.took(size.tokens, 0.01 + size.tokens * 4e-6)
        size.adapt(0.008)
    assert size.tokens > 1500
    assert 0.009 < size.fixed < 0.011


def test_slices_that_cost_what_their_tokens_cost_stay_within_what_others_can_wait() -> None:
    size = SliceSize(first=64, most=2048)
    for _ in range(30):
        size.took(size.tokens, size.tokens * 1e-4)
        size.adapt(0.008)
    assert 70 <= size.tokens <= 80


def test_slices_at_their_smallest_are_not_all_that_is_ever_tried() -> None:
    size = SliceSize(first=16, most=2048)
    for _ in range(60):
        size.took(size.tokens, 0.01 + size.tokens * 4e-6)
        size.adapt(0.008)
    assert size.tokens > 1500
