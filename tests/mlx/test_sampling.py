"""Samplers and processors, on logits whose outcome is known."""

import mlx.core as mx
import pytest

from adapters.mlx.sampling import make_processors, make_sampler
from domain.chat import Sampling

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def drawn(count: int = 300, **settings: float) -> set[int]:
    sampler = make_sampler(Sampling(seed=1, **settings))  # type: ignore[arg-type]
    return {int(sampler(LOGPROBS).item()) for _ in range(count)}


def test_greedy_takes_the_likeliest() -> None:
    assert drawn(temperature=0) == {0}
    assert drawn(top_k=1) == {0}
    assert drawn(temperature=1e-9) == {0}


@pytest.mark.parametrize(
    ("settings", "possible"),
    [
        ({}, {0, 1, 2, 3}),
        ({"top_k": 2}, {0, 1}),
        ({"top_p": 0.6}, {0, 1}),
        ({"top_p": 0.5}, {0}),
        ({"top_p": 0.0}, {0}),
        ({"min_p": 0.5}, {0, 1}),
        ({"min_p": 1.0}, {0}),
        ({"top_k": 3, "top_p": 0.7}, {0, 1}),
        ({"top_k": 100}, {0, 1, 2, 3}),
    ],
)
def test_filters_leave_what_they_should(settings: dict[str, float], possible: set[int]) -> None:
    assert drawn(**settings) == possible


def test_a_seed_repeats_itself_and_leaves_the_global_state_alone() -> None:
    before = [array.tolist() for array in mx.random.state]
    first = make_sampler(Sampling(seed=42))
    second = make_sampler(Sampling(seed=42))
    other = make_sampler(Sampling(seed=43))
    runs = [[int(s(LOGPROBS).item()) for _ in range(40)] for s in (first, second, other)]
    assert runs[0] == runs[1] != runs[2]
    assert [array.tolist() for array in mx.random.state] == before


def test_any_seed_of_64_bits_is_taken() -> None:
    for seed in (-(2**63), -1, 0, 2**63 - 1, 2**64 - 1):
        make_sampler(Sampling(seed=seed))(LOGPROBS)


def test_frequencies_follow_the_temperature() -> None:
    sampler = make_sampler(Sampling(seed=3, temperature=1.0))
    hits = sum(int(sampler(LOGPROBS).item()) == 0 for _ in range(2000))
    assert 0.45 < hits / 2000 < 0.55


def processed(tokens: list[int], prompt_tokens: int, **settings: object) -> list[float]:
    logits = mx.array([[1.0, -1.0, 2.0, 0.0]])
    for process in make_processors(Sampling(**settings), prompt_tokens, 4):  # type: ignore[arg-type]
        logits = process(mx.array(tokens), logits)
    return [round(value, 4) for value in logits[0].tolist()]


def test_penalties_and_biases() -> None:
    assert processed([0, 2, 2], 1) == [1, -1, 2, 0]
    assert processed([0, 2, 2], 1, presence_penalty=0.5) == [1, -1, 1.5, 0]
    assert processed([0, 2, 2], 1, frequency_penalty=0.5) == [1, -1, 1, 0]
    assert processed([0, 1, 2], 1, repetition_penalty=2.0) == [0.5, -2, 1, 0]
    assert processed([0], 1, logit_bias={3: 5, 0: -100}) == [-99, -1, 2, 5]
    assert processed([0], 1, presence_penalty=1.0) == [1, -1, 2, 0]  # the prompt is not punished
