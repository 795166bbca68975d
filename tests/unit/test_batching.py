"""Which waiting requests join the running batch."""

from hypothesis import given
from hypothesis import strategies as st

from domain.batching import admit

queues = st.lists(st.integers(0, 50), max_size=10)
rooms = st.integers(-5, 200)
places = st.integers(-2, 12)


def test_the_longest_prefix_that_fits_is_admitted() -> None:
    assert admit([10, 20, 30], slots=8, kv_tokens=30) == 2
    assert admit([10, 20, 30], slots=1, kv_tokens=30) == 1
    assert admit([10, 20, 30], slots=8, kv_tokens=60) == 3


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    assert admit([100, 1], slots=8, kv_tokens=50) == 0


def test_nothing_joins_a_full_batch() -> None:
    assert admit([1], slots=0, kv_tokens=50) == 0
    assert admit([], slots=8, kv_tokens=50) == 0


@given(queues, places, rooms)
def test_what_is_admitted_fits(waiting: list[int], slots: int, room: int) -> None:
    taken = admit(waiting, slots, room)
    assert 0 <= taken <= max(slots, 0)
    assert taken == 0 or sum(waiting[:taken]) <= room


@given(queues, places, rooms)
def test_one_more_would_not_fit(waiting: list[int], slots: int, room: int) -> None:
    taken = admit(waiting, slots, room)
    if taken < len(waiting):
        assert taken == max(slots, 0) or sum(waiting[: taken + 1]) > room


@given(queues, st.integers(1, 12), rooms)
def test_the_head_joins_whenever_it_fits(waiting: list[int], slots: int, room: int) -> None:
    joins = admit(waiting, slots, room) > 0
    assert joins == (bool(waiting) and waiting[0] <= room)
