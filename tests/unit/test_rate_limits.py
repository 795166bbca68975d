"""The sliding minute: never more than the limit, and never later than need be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.rate_limits import WINDOW, SlidingWindow

# Eighths of a second, which floats add up exactly.
PAUSES = st.lists(st.integers(0, int(16 * WINDOW)).map(lambda pause: pause / 8), max_size=60)


@given(st.integers(1, 6), PAUSES)
def test_no_minute_holds_more_than_the_limit(limit: int, pauses: list[float]) -> None:
    window, now, admitted = SlidingWindow(limit), 0.0, []
    for pause in pauses:
        now += pause
        recent = [when for when in admitted if now - when < WINDOW]
        assert window.remaining(now) == limit - len(recent)
        assert (window.wait(now) == 0) == (len(recent) < limit)
        if window.wait(now) == 0:
            window.record(now, 1)
            admitted.append(now)
    for when in admitted:
        assert len([other for other in admitted if when <= other < when + WINDOW]) <= limit


@given(st.integers(1, 100), st.lists(st.tuples(st.integers(0, 59), st.integers(1, 300))))
def test_who_waits_as_told_gets_in_and_not_before(limit: int, done: list[tuple[int, int]]) -> None:
    window = SlidingWindow(limit)
    for when, amount in sorted(done):
        window.record(float(when), amount)
    wait = window.wait(59.0)
    assert 0 <= wait <= WINDOW
    if wait:
        earlier = SlidingWindow(limit)
        for when, amount in sorted(done):
            earlier.record(float(when), amount)
        assert earlier.remaining(59.0 + wait - 0.001) == 0
        assert window.remaining(59.0 + wait) >= 1


def test_more_than_the_limit_can_be_recorded_and_is_waited_for() -> None:
    window = SlidingWindow(100)
    window.record(0.0, 60)
    window.record(30.0, 500)
    assert window.remaining(30.0) == 0
    assert window.wait(30.0) == pytest.approx(WINDOW)  # the first 60 make no room
    assert window.reset(40.0) == pytest.approx(50.0)
    assert window.remaining(90.0) == 100
    assert (window.wait(90.0), window.reset(90.0)) == (0.0, 0.0)
