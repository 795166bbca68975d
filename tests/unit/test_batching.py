"""Which waiting requests join the running batch, and which leave it again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.batching import (
    LEAST_SLICE,
    Cost,
    admit,
    even_slice,
    keep,
    next_slice_size,
    slice_cost,
)

sizes = st.lists(st.integers(1, 50), max_size=10)
rooms = st.integers(-5, 1500)
places = st.integers(-2, 12)
# A batch is padded: every row costs its fixed state, and as much as the longest.
costs = st.builds(
    lambda per_token, fixed, window: (
        lambda tokens, rows: rows * (fixed + per_token * min(tokens, window))
    ),
    st.integers(0, 5),
    st.integers(0, 20),
    st.integers(10, 60),
)


def padded(tokens: int, rows: int) -> int:
    return tokens * rows


def fits(requests: list[int], cost: Cost, room: int) -> bool:
    return cost(max(requests), len(requests)) <= room


def test_the_longest_prefix_that_fits_is_admitted() -> None:
    assert admit([], [10, 10, 30], 8, padded, 30) == 2
    assert admit([], [10, 10, 30], 1, padded, 30) == 1
    assert admit([], [10, 10, 30], 8, padded, 90) == 3


def test_a_long_request_makes_every_row_longer() -> None:
    assert admit([10, 10, 10], [30], 8, padded, 60) == 0
    assert admit([10, 10, 10], [30], 8, padded, 120) == 1


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    assert admit([], [100, 1], 8, padded, 50) == 0


def test_nothing_joins_a_full_batch() -> None:
    assert admit([], [1], 0, padded, 50) == 0
    assert admit([], [], 8, padded, 50) == 0


def test_the_youngest_leave_and_the_oldest_stays_whatever_it_costs() -> None:
    assert keep([10, 20, 30], padded, 50) == 2
    assert keep([10, 20, 30], padded, 90) == 3
    assert keep([100, 1], padded, 50) == 1
    assert keep([], padded, 50) == 0


@given(sizes, sizes, places, costs, rooms)
def test_what_is_admitted_fits(
    running: list[int], waiting: list[int], slots: int, cost: Cost, room: int
) -> None:
    taken = admit(running, waiting, slots, cost, room)
    assert 0 <= taken <= min(len(waiting), max(slots, 0))
    assert taken == 0 or fits([*running, *waiting[:taken]], cost, room)


@given(sizes, sizes, places, costs, rooms)
def test_one_more_would_not_fit(
    running: list[int], waiting: list[int], slots: int, cost: Cost, room: int
) -> None:
    taken = admit(running, waiting, slots, cost, room)
    if taken < len(waiting):
        more = [*running, *waiting[: taken + 1]]
        assert taken == max(slots, 0) or not fits(more, cost, room)


@given(sizes, st.integers(1, 12), costs, rooms)
def test_the_head_joins_an_empty_batch_whenever_it_fits(
    waiting: list[int], slots: int, cost: Cost, room: int
) -> None:
    joins = admit([], waiting, slots, cost, room) > 0
    assert joins == (bool(waiting) and fits(waiting[:1], cost, room))


@given(sizes, costs, rooms)
def test_those_that_are_kept_fit_unless_one_is_alone(
    running: list[int], cost: Cost, room: int
) -> None:
    kept = keep(running, cost, room)
    assert min(1, len(running)) <= kept <= len(running)
    assert kept <= 1 or fits(running[:kept], cost, room)


@given(sizes, costs, rooms)
def test_nobody_leaves_without_need(running: list[int], cost: Cost, room: int) -> None:
    kept = keep(running, cost, room)
    if kept < len(running):
        assert not fits(running[: kept + 1], cost, room)


@given(st.integers(1, 5000), st.integers(16, 2048), st.sampled_from([1, 16, 64]))
def test_slices_are_few_and_even(tokens: int, at_most: int, multiple: int) -> None:
    sizes = []
    while left := tokens - sum(sizes):
        sizes.append(even_slice(left, at_most, multiple))
    assert all(size <= max(at_most, multiple) for size in sizes)
    assert all(size % multiple == 0 for size in sizes[:-1])
    if multiple == 1:
        assert len(sizes) == -(-tokens // at_most)
        assert max(sizes) - min(sizes) <= len(sizes)


@given(
    st.floats(0.001, 1.0),
    st.floats(0.0, 0.1),
    st.floats(1e-6, 0.01),
    st.integers(LEAST_SLICE, 4096),
)
def test_slices_come_to_take_the_time_they_may(
    budget: float, fixed: float, each: float, size: int
) -> None:
    """Of which a slice may have as much for its tokens as it costs without them."""
    seen = {0: (2 * size, fixed + 2 * size * each)}
    for _ in range(60):
        seen[size.bit_length()] = (size, fixed + size * each)
        size = min(next_slice_size(size, slice_cost([*seen.values()]), budget), 10**6)
    allowed = max(budget, 2 * fixed)
    assert size == LEAST_SLICE or fixed + size * each <= 1.5 * allowed + each
    assert size == 10**6 or fixed + (size + 1) * each >= 0.6 * allowed


@given(
    st.floats(0.0, 0.1),
    st.floats(1e-6, 0.01),
    st.lists(st.integers(16, 2048), min_size=2, max_size=16, unique=True),
)
def test_what_slices_cost_is_found(fixed: float, each: float, sizes: list[int]) -> None:
    slices = [(size, fixed + size * each) for size in sizes]
    assert slice_cost(slices) == pytest.approx((fixed, each), rel=1e-3, abs=1e-6)


def test_slices_that_took_far_longer_than_others_hardly_count() -> None:
    quick = [(size, 0.01 + size * 1e-6) for size in range(64, 2048, 64)]
    fixed, each = slice_cost([*quick, (1000, 5.0), (100, 5.0)])
    assert fixed == pytest.approx(0.01, rel=0.05)
    assert each == pytest.approx(1e-6, rel=0.5)


def test_equal_slices_tell_nothing_of_shorter_ones() -> None:
    assert slice_cost([(64, 0.1)]) == slice_cost([(64, 0.1)] * 8) == (0.0, 0.1 / 64)


def test_slices_that_cost_nothing_grow() -> None:
    assert next_slice_size(64, (0.0, 0.0), 0.01) == 128
