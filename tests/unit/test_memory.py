"""What a model needs, and what a plan makes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import InvalidRequest
from domain.memory import (
    CacheLayers,
    LoadPlan,
    MemoryNeed,
    MemoryProfile,
    ModelPolicy,
    plan_load,
    whole_steps,
)

sizes = st.integers(0, 10_000)
contexts = st.integers(1, 20_000)
groups = st.builds(
    CacheLayers,
    bytes_per_token=st.integers(0, 50),
    window=st.none() | st.integers(1, 5_000),
    fixed=st.integers(0, 1_000),
)
profiles = st.builds(
    MemoryProfile,
    weights=sizes,
    layers=st.lists(groups, max_size=3).map(tuple),
    prefill=sizes,
    prefill_per_token=st.integers(0, 5),
)
PLAIN = MemoryProfile(1_000, (CacheLayers(bytes_per_token=2),), prefill=100, prefill_per_token=1)


def test_a_cache_grows_by_whole_steps_up_to_its_window() -> None:
    assert [whole_steps(tokens) for tokens in (0, 1, 256, 257)] == [0, 256, 256, 512]
    assert CacheLayers(3).size(257) == 3 * 512
    assert CacheLayers(3, window=300).size(257) == 3 * 300
    assert CacheLayers(3, window=300, fixed=7).size(10_000) == 3 * 300 + 7


def test_a_need_is_weights_caches_and_what_prefill_takes() -> None:
    assert PLAIN.need(512, 4) == MemoryNeed(1_000, 4 * 512 * 2, 100 + 512)
    assert PLAIN.need(512, 4).total == 1_000 + 4_096 + 612


@given(profiles, contexts, contexts, st.integers(0, 40), st.integers(0, 40))
def test_more_context_or_more_requests_never_need_less(
    profile: MemoryProfile, context: int, more: int, rows: int, others: int
) -> None:
    small, large = sorted([context, more])
    few, many = sorted([rows, others])
    assert profile.need(small, few).total <= profile.need(large, many).total


@given(profiles, sizes, contexts)
def test_the_longest_context_fits_and_one_step_more_does_not(
    profile: MemoryProfile, room: int, own: int
) -> None:
    longest = profile.longest_context(room, own)
    assert 0 <= longest <= own
    if longest:
        assert profile.need(longest, 1).total <= room
    if longest < own:
        more = min(longest - longest % 256 + 256, own)
        assert profile.need(more, 1).total > room


@given(profiles, contexts, sizes, st.integers(1, 64))
def test_what_is_left_open_fits_whenever_anything_does(
    profile: MemoryProfile, own: int, room: int, slots: int
) -> None:
    plan = plan_load(profile, ModelPolicy(), own, room, slots)
    assert 1 <= plan.concurrency <= slots
    assert 1 <= plan.context_length <= own
    least = profile.need(min(own, 4096), 1).total
    assert (plan.need.total <= room) == (least <= room)


def test_what_is_stated_is_kept_whether_it_fits_or_not() -> None:
    policy = ModelPolicy(context_length=4_096, concurrency=8, kv_bits=4)
    plan = plan_load(PLAIN, policy, 32_768, room=10, slots=32)
    assert plan == LoadPlan(PLAIN, 4_096, 8, 4)


def test_a_model_gets_no_more_context_than_its_own_and_no_more_requests_than_run() -> None:
    plan = plan_load(PLAIN, ModelPolicy(context_length=4_096, concurrency=8), 1_024, 10**9, 2)
    assert (plan.context_length, plan.concurrency) == (1_024, 2)


def test_the_reserve_grows_with_the_room_up_to_a_quarter_of_it() -> None:
    wide = plan_load(PLAIN, ModelPolicy(), 1_024, room=10**9, slots=32)
    assert (wide.context_length, wide.concurrency) == (1_024, 32)
    narrow = plan_load(PLAIN, ModelPolicy(), 1_024, room=40_000, slots=32)
    assert narrow.concurrency == 40_000 // 4 // PLAIN.kv(1_024)


def test_a_context_that_does_not_fit_is_cut_to_what_does() -> None:
    plan = plan_load(PLAIN, ModelPolicy(), 131_072, room=100_000, slots=32)
    assert 4_096 < plan.context_length < 131_072
    assert plan.need.total <= 100_000
    assert plan.concurrency == 1


@pytest.mark.parametrize(
    "wrong", [{"context_length": 0}, {"concurrency": 0}, {"concurrency": 5_000}, {"kv_bits": 3}]
)
def test_policies_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ModelPolicy(**wrong)  # type: ignore[arg-type]
    assert caught.value.param in wrong
