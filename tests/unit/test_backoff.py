"""Rests between deaths, as a pure policy."""

from hypothesis import given
from hypothesis import strategies as st

from domain.backoff import Deaths, after_death, rest

seconds = st.floats(0, 1e9)
lives = st.floats(0, 1e6)


def test_the_first_death_costs_nothing_and_rests_double() -> None:
    assert [rest(count) for count in range(1, 10)] == [0, 1, 2, 4, 8, 16, 32, 60, 60]


@given(st.integers(1, 10**9))
def test_rests_never_shrink_and_have_an_end(deaths: int) -> None:
    assert 0 <= rest(deaths) <= rest(deaths + 1) <= 60


@given(st.lists(st.tuples(lives, lives), min_size=1))
def test_only_deaths_soon_after_a_load_add_up(stories: list[tuple[float, float]]) -> None:
    """Each story: how long it lived, and how long it was gone before."""
    deaths: Deaths | None = None
    now, in_a_row = 0.0, 0
    for lived, gone in stories:
        now += lived + gone
        in_a_row = in_a_row + 1 if lived < 60 else 1
        deaths = after_death(deaths, now, lived, "it broke")
        assert deaths.count == in_a_row
        assert deaths.until == now + rest(in_a_row)


@given(seconds, st.integers(1, 20), lives)
def test_what_is_left_of_a_rest_runs_out(now: float, count: int, later: float) -> None:
    deaths = after_death(Deaths(count, now, ""), now, 0.0, "it broke")
    assert deaths.rest_left(now) == deaths.until - now
    assert deaths.rest_left(now + later) <= deaths.rest_left(now)
    assert deaths.rest_left(deaths.until) == 0
