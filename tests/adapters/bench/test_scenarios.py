"""What is asked: the same for the same seed, of the lengths asked for."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bench.prompts import Prompts
from adapters.bench.scenarios import SCENARIOS, Request, Stage, Workload, varied_sampling, warm_up


def plan(name: str, seed: str = "0", **knobs: object) -> tuple[Stage, ...]:
    scenario = SCENARIOS[name]
    prompts = Prompts(seed, tokens_per_word=1)
    return scenario.plan(scenario.workload(knobs), prompts)


def words(request: Request) -> int:
    return sum(len(text.split()) for _, text in request.messages)


@given(st.text(), st.integers(1, 500), st.floats(0.5, 4))
def test_a_prompt_has_as_many_words_as_make_its_tokens(seed: str, tokens: int, rate: float) -> None:
    text = Prompts(seed, tokens_per_word=rate, spread=0.3).exactly(tokens)
    assert len(text.split()) == max(1, round(tokens / rate))
    assert text == Prompts(seed, tokens_per_word=rate, spread=0.3).exactly(tokens)
    assert re.fullmatch("[a-z ]+", text)


@given(st.integers(0, 1000), st.floats(0, 0.9))
def test_lengths_stay_within_the_spread(seed: int, spread: float) -> None:
    prompts = Prompts(str(seed), tokens_per_word=1, spread=spread)
    for _ in range(20):
        assert 100 * (1 - spread) - 1 <= len(prompts.about(100).split()) <= 100 * (1 + spread) + 1


def test_real_prompts_are_dealt_before_any_comes_again() -> None:
    texts = ["a", "b", "c"]
    dealt = [Prompts("1", texts=texts).about(9) for _ in range(2)]
    assert dealt[0] == dealt[1]
    row = Prompts("1", texts=texts)
    assert sorted(row.about(9) for _ in range(3)) == texts
    assert sorted(row.about(9) for _ in range(3)) == texts


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_is_decided_by_its_seed(name: str) -> None:
    assert plan(name, "7") == plan(name, "7")
    assert plan(name, "7") != plan(name, "8")


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_text_is_asked_twice(name: str) -> None:
    stages = plan(name, concurrency=(2, 3), prompt_tokens=50)
    texts = [r.messages[-1][1] for stage in stages for r in stage.requests]
    assert len(set(texts)) == len(texts)
    assert len({stage.name for stage in stages}) == len(stages)


def test_throughput() -> None:
    one, eight = plan("throughput", concurrency=(1, 8), prompt_tokens=50, output_tokens=9)
    assert (one.name, one.concurrency, len(one.requests)) == ("1 stream", 1, 4)
    assert (eight.name, eight.concurrency, len(eight.requests)) == ("8 streams", 8, 32)
    assert {words(request) for request in eight.requests} == {50}
    assert {request.max_tokens for request in eight.requests} == {9}
    assert {tuple(request.sampling.items()) for request in one.requests} == {(("temperature", 0),)}


def test_shared_prefix() -> None:
    few, more = plan("shared-prefix", concurrency=(2, 3), prefix_tokens=70, prompt_tokens=5)
    assert len(few.requests) == 2
    prefixes = {request.messages[0] for stage in (few, more) for request in stage.requests}
    assert len(prefixes) == 2
    assert all(role == "system" and len(text.split()) == 70 for role, text in prefixes)
    assert {words(request) for request in more.requests} == {75}


def test_turns_continue_their_own_chat() -> None:
    stages = plan("multi-turn", concurrency=(2,), turns=3, prompt_tokens=40, turn_tokens=6)
    assert [stage.name for stage in stages] == ["turn 1", "turn 2", "turn 3"]
    chats = [[request.chat for request in stage.requests] for stage in stages]
    assert chats[0] == chats[1] == chats[2] == ["2/0", "2/1"]
    assert [words(stage.requests[0]) for stage in stages] == [40, 6, 6]


def test_a_long_prompt_comes_among_streams() -> None:
    (stage,) = plan("long-among-streams", concurrency=(4,), long_tokens=400, output_tokens=100)
    assert len(stage.requests) == stage.concurrency == 4
    assert stage.late
    assert (words(stage.late), stage.late.max_tokens) == (400, 16)


def test_sampling_is_mixed() -> None:
    greedy, mixed = plan("mixed-sampling", concurrency=(15,))
    assert (greedy.name, mixed.name) == ("15 streams, greedy", "15 streams, mixed")
    rows = [tuple(sorted(varied_sampling(n).items())) for n in range(60)]
    unseeded = {tuple(pair for pair in row if pair[0] != "seed") for row in rows}
    assert len(unseeded) == 60
    assert [request.sampling["seed"] for request in mixed.requests] == list(range(60))


def test_a_knob_that_would_change_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="long_tokens"):
        SCENARIOS["throughput"].workload({"long_tokens": 1, "turns": None})


def test_a_warm_up_is_short() -> None:
    stages = warm_up(Workload(concurrency=(1, 3)), Prompts("w"))
    assert [(s.concurrency, len(s.requests)) for s in stages] == [(1, 1), (3, 3)]
    assert {r.max_tokens for s in stages for r in s.requests} == {8}
