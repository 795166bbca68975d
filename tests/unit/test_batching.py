"""Which waiting requests join the running batch, and which leave it again."""

from hypothesis import given
from hypothesis import strategies as st

from domain.batching import (
    LEAST_SLICE,
    Cost,
    admit,
    await_company,
    even_slice,
    keep,
    least_slice,
    next_slice_size,
)
from domain.batching import places as batch_places

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
    for _ in range(60):
        size = next_slice_size(size, size, fixed + size * each, budget)
    assert size >= LEAST_SLICE
    assert size == LEAST_SLICE or fixed + size * each <= 1.26 * budget + each
    assert 2 * size > (budget - fixed) / each or size > 4096


def test_a_small_slice_says_nothing_of_a_large_one() -> None:
    assert next_slice_size(100, 20, 0.001, 1.0) == 100


def test_one_slow_slice_halves_the_size_at_most() -> None:
    assert next_slice_size(100, 100, 60.0, 0.01) == 50


def test_slices_are_not_cut_to_where_it_gains_nothing() -> None:
    assert next_slice_size(600, 600, 1.0, 0.01, least=512) == 512
    assert next_slice_size(512, 64, 1.0, 0.01, least=512) == 512


@given(st.integers(0, 200))
def test_a_batch_has_room_for_all_and_seldom_another_shape(rows: int) -> None:
    room = batch_places(rows)
    assert rows <= room < rows + 8
    assert room <= max(2 * rows, 1)
    assert room % 8 == 0 or room in {1, 2, 4}
    assert batch_places(room) == room


def test_prompts_wait_while_more_come_but_no_longer_than_a_slice_takes() -> None:
    assert await_company(full=False, arrived=True, waited=0.01, slice_seconds=0.02)
    assert not await_company(full=False, arrived=False, waited=0.01, slice_seconds=0.02)
    assert not await_company(full=True, arrived=True, waited=0.01, slice_seconds=0.02)
    assert not await_company(full=False, arrived=True, waited=0.02, slice_seconds=0.02)


@given(st.floats(1e-4, 0.1), st.floats(1e-7, 1e-2))
def test_half_of_what_the_least_slice_takes_is_overhead(overhead: float, per_token: float) -> None:
    def timed(tokens: int) -> tuple[int, float]:
        return tokens, overhead + tokens * per_token

    least = least_slice(timed(64), timed(2048), 2048)
    assert LEAST_SLICE <= least <= 2048
    if LEAST_SLICE < least < 2048:
        assert abs(least * per_token - overhead) <= per_token + 1e-3 * overhead


def test_tokens_that_cost_nothing_or_all_there_is() -> None:
    assert least_slice((64, 0.01), (2048, 0.01), 2048) == 2048
    assert least_slice((64, 0.01), (2048, 0.009), 2048) == 2048
    assert least_slice((64, 0.0), (2048, 2.0), 2048) == LEAST_SLICE
