"""The sliding minute: never more than the limit, and never later than need be."""

from copy import deepcopy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.chat import ChatCommand, Message, Sampling, TextCommand
from domain.models import ModelId
from domain.rate_limits import WINDOW, SlidingWindow, expected_tokens

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


# How long until the next one asks, what it expects, what of that it costs in the end, in percent,
# and how many others begin before it ends.
REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 240).map(lambda pause: pause / 8),
        st.integers(1, 400),
        st.integers(0, 100),
        st.integers(0, 5),
    ),
    max_size=60,
)


@given(st.integers(1, 500), REQUESTS)
def test_who_expects_enough_never_overdraws_however_many_run(
    limit: int, requests: list[tuple[float, int, int, int]]
) -> None:
    window, now = SlidingWindow(limit), 0.0
    running: list[list[int]] = []  # what is held, the cost, and how many may still begin
    done: list[tuple[float, int]] = []
    for pause, expected, percent, others in requests:
        now += pause
        for one in [one for one in running if one[2] == 0]:
            running.remove(one)
            window.hold(-one[0])
            window.record(now, one[1])
            done.append((now, one[1]))
        for one in running:
            one[2] -= 1
        amount = min(expected, limit)
        taken = sum(cost for when, cost in done if now - when < WINDOW)
        taken += sum(held for held, _, _ in running)
        assert taken <= limit
        assert window.remaining(now) == limit - taken
        wait = window.wait(now, amount)
        assert (wait == 0) == (taken + amount <= limit)
        if wait == 0:
            window.hold(amount)
            running.append([amount, amount * percent // 100, others])
        elif not running:
            later = deepcopy(window)  # the clock of this one goes on from here
            assert later.remaining(now + wait) >= amount  # who waits as told gets in
        else:
            assert wait > 0


def test_what_a_request_may_cost() -> None:
    model = ModelId("m")
    chat = ChatCommand(model, (Message.user("x" * 396),), Sampling(max_tokens=50))  # and its role
    assert expected_tokens([chat], 1) == 100 + 50
    assert expected_tokens([chat] * 3, 3) == 100 + 3 * 50
    text = TextCommand(model, "x" * 401, Sampling(max_tokens=0))
    assert expected_tokens([text] * 4, 2) == 2 * 101
    assert expected_tokens([TextCommand(model, tuple(range(30)))], 1) == 30 + 1024
