"""What a key's owner may do, and what it is charged."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from application.callers import Caller
from application.choices import Choice
from domain.access import Access
from domain.errors import ModelNotFound, RateLimited
from domain.events import Finished, TextDelta, Usage
from domain.models import ModelId
from domain.outputs import PromptProgress
from tests.fakes import FakeClock


async def said(*choices: Choice) -> AsyncGenerator[Choice, None]:
    for choice in choices:
        yield choice


def answer(index: int, prompt: int, completion: int) -> list[Choice]:
    return [
        (index, PromptProgress(prompt, prompt)),
        (index, TextDelta("hi")),
        (index, Finished("stop", Usage(prompt, completion))),
    ]


def remaining(caller: Caller) -> int:
    (left,) = caller.allowances()
    return left.remaining


def test_requests_are_counted_and_refused_ones_are_not() -> None:
    clock = FakeClock()
    caller = Caller(Access("guest", requests_per_minute=2), clock)
    caller.begin_request()
    clock.advance(20)
    caller.begin_request()
    for _ in range(3):
        with pytest.raises(RateLimited, match=r"`guest`: 2 requests per minute.*40\.0s") as refusal:
            caller.begin_request()
    assert refusal.value.retry_after == 40
    clock.advance(40)
    caller.begin_request()


async def test_tokens_are_charged_as_usage_counts_them() -> None:
    caller = Caller(Access("guest", tokens_per_minute=1000), FakeClock())
    # Two prompts with two choices each; a prompt counts once.
    choices = [choice for n in range(4) for choice in answer(n, 10, 5)]
    assert [c async for c in caller.metered(said(*choices), 2, 100)] == choices
    assert remaining(caller) == 1000 - 2 * 10 - 4 * 5


async def test_what_is_cut_short_is_charged_as_far_as_it_came() -> None:
    caller = Caller(Access("guest", tokens_per_minute=1000), FakeClock())
    async with aclosing(caller.metered(said(*answer(0, 10, 50)), 1, 60)) as choices:
        await anext(choices)
        await anext(choices)
    assert remaining(caller) == 1000 - 10 - 1


async def test_without_tokens_left_nothing_begins() -> None:
    clock = FakeClock()
    caller = Caller(Access("guest", tokens_per_minute=10), clock)
    assert len([c async for c in caller.metered(said(*answer(0, 8, 100)), 1, 2000)]) == 3
    begun = said(*answer(0, 1, 1))
    with pytest.raises(RateLimited, match="10 tokens per minute"):
        await anext(caller.metered(begun, 1, 2))
    assert [c async for c in begun] == []  # it was closed
    clock.advance(60)
    assert len([c async for c in caller.metered(said(*answer(0, 1, 1)), 1, 2)]) == 3


async def test_without_limits_nothing_stands_between() -> None:
    caller = Caller(Access(), FakeClock())
    choices = said()
    assert caller.metered(choices, 1, 10) is choices
    assert [c async for c in choices] == []
    assert caller.allowances() == []


def test_a_key_opens_its_models_and_no_others() -> None:
    one, other = ModelId.parse("org/one"), ModelId.parse("other")
    access = Access("guest", frozenset({one}))
    access.require(one)
    with pytest.raises(ModelNotFound, match="other"):
        access.require(other)
    Access().require(other)
    assert not Access("nobody", frozenset()).may_use(one)


async def test_what_runs_is_held_so_that_many_at_once_stay_within_the_limit() -> None:
    caller = Caller(Access("guest", tokens_per_minute=1000), FakeClock())
    running = []
    with pytest.raises(RateLimited, match="1000 tokens per minute"):
        for _ in range(50):
            running.append(caller.metered(said(*answer(0, 10, 20)), 1, 110))
            await anext(running[-1])
    refused = running.pop()
    assert [choice async for choice in refused] == []
    assert len(running) == 9
    assert remaining(caller) == 1000 - 9 * 110
    for choices in running:
        await choices.aclose()
    assert remaining(caller) == 1000 - 9 * 10  # of each the prompt had come


async def test_what_turns_out_to_cost_more_is_held_at_once() -> None:
    caller = Caller(Access("guest", tokens_per_minute=1000), FakeClock())
    choices = caller.metered(said(*answer(0, 700, 5)), 1, 100)
    assert remaining(caller) == 1000
    async with aclosing(choices):
        await anext(choices)
        assert remaining(caller) == 300
        await anext(choices)
        assert remaining(caller) == 299
    assert remaining(caller) == 299


async def test_more_than_the_limit_is_let_in_alone() -> None:
    caller = Caller(Access("guest", tokens_per_minute=100), FakeClock())
    choices = caller.metered(said(*answer(0, 10, 20)), 1, 5000)
    async with aclosing(choices):
        await anext(choices)
        with pytest.raises(RateLimited) as refusal:
            await anext(caller.metered(said(), 1, 1))
        assert refusal.value.retry_after == 1.0  # nobody knows
    assert remaining(caller) == 90
