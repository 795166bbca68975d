"""Sampling of whole batches, on logits whose outcome is known."""

from collections.abc import Sequence

import mlx.core as mx
import pytest

from adapters.mlx import sampling
from adapters.mlx.sampling import BatchSampler, SamplingRow
from domain.chat import Sampling

LOGITS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


@pytest.fixture(params=["cpu", "gpu"], autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What draws on each."""
    monkeypatch.setattr(sampling, "_ON_CPU", request.param == "cpu")


def row(prompt: Sequence[int] = (), answer: Sequence[int] = (), **settings: object) -> SamplingRow:
    return SamplingRow(Sampling(**settings), prompt, answer, 4)  # type: ignore[arg-type]


def draws(count: int, *rows: SamplingRow) -> list[list[int]]:
    """`count` tokens of each row."""
    sampler = BatchSampler(rows)
    logits = mx.repeat(LOGITS, len(rows), axis=0)
    steps = [sampler.sample(sampler.process(logits + 0)).tolist() for _ in range(count)]
    return [list(tokens) for tokens in zip(*steps, strict=True)]


def drawn(count: int = 300, **settings: object) -> set[int]:
    return set(draws(count, row(seed=1, **settings))[0])


def test_greedy_takes_the_likeliest() -> None:
    assert drawn(temperature=0) == {0}
    assert drawn(top_k=1) == {0}
    assert drawn(temperature=1e-9) == {0}


@pytest.mark.parametrize("company", [False, True])
def test_greedy_takes_what_generate_takes(company: bool) -> None:
    """Its log-probabilities of 16 bits make equals of tokens whose logits differ."""
    logits = mx.random.normal((400, 4096), mx.bfloat16, key=mx.random.key(1))
    expected = mx.argmax(logits - mx.logsumexp(logits, axis=-1, keepdims=True), axis=-1)
    assert not mx.array_equal(expected, mx.argmax(logits, axis=-1))
    rows = [row(temperature=0.0) for _ in range(400)]
    rows[7] = row(temperature=1.0 if company else 0.0, seed=1)
    drawn = BatchSampler(rows).sample(logits)
    assert [n for n in range(400) if drawn[n] != expected[n]] == [7] * company


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
    first, second, other = (draws(40, row(seed=seed))[0] for seed in (42, 42, 43))
    assert first == second != other
    assert [array.tolist() for array in mx.random.state] == before


def test_a_row_draws_the_same_in_any_company() -> None:
    kinds: list[dict[str, object]] = [
        {"seed": 1},
        {"temperature": 0},
        {"seed": 1, "top_p": 0.9},
        {"seed": 2, "top_k": 3, "frequency_penalty": 0.5},
        {"seed": 3, "temperature": 1.7, "logit_bias": {3: 2.0}},
        {"temperature": 0, "presence_penalty": 0.9},
        {"seed": 4, "min_p": 0.2, "repetition_penalty": 1.3},
    ]
    alone = [draws(30, row(**kind))[0] for kind in kinds]
    assert draws(30, *(row(**kind) for kind in kinds)) == alone
    assert draws(30, *(row(**kind) for kind in reversed(kinds))) == alone[::-1]


def test_a_row_goes_on_when_others_come_and_go() -> None:
    kind: dict[str, object] = {"seed": 7, "frequency_penalty": 0.3, "top_p": 0.95}
    alone = draws(30, row(**kind))[0]
    goes_on = row(**kind)
    said: list[int] = []
    for others in ([], [row(seed=1)], [row(temperature=0), row(seed=2, presence_penalty=1.0)]):
        sampler = BatchSampler([*others, goes_on])
        logits = mx.repeat(LOGITS, len(others) + 1, axis=0)
        said += [int(sampler.sample(sampler.process(logits + 0))[-1].item()) for _ in range(10)]
        sampler.release()
    assert said == alone


def test_a_row_that_is_rewound_draws_the_same_again() -> None:
    kind: dict[str, object] = {"seed": 7, "frequency_penalty": 0.3}
    alone = draws(30, row([0], **kind))[0]
    again = row([0], **kind)
    assert draws(20, again)[0] == alone[:20]
    again.rewind([0], alone[:12])
    assert draws(18, again)[0] == alone[12:]


def test_any_seed_of_64_bits_is_taken() -> None:
    for seed in (-(2**63), -1, 0, 2**63 - 1, 2**64 - 1):
        draws(1, row(seed=seed))


def test_rows_without_a_seed_differ() -> None:
    one, other = draws(60, row(), row())
    assert one != other


def test_frequencies_follow_the_temperature() -> None:
    (said,) = draws(2000, row(seed=3, temperature=1.0))
    assert 0.45 < said.count(0) / 2000 < 0.55


def processed(tokens: list[int], prompt_tokens: int, **settings: object) -> list[float]:
    rows = [row(tokens[:prompt_tokens], tokens[prompt_tokens:], **settings), row()]
    logits = mx.array([[1.0, -1.0, 2.0, 0.0]] * 2)
    mine, others = BatchSampler(rows).process(logits).tolist()  # type: ignore[misc]
    assert others == [1, -1, 2, 0]
    return [round(value, 4) for value in mine]


def test_penalties_and_biases() -> None:
    assert processed([0, 2, 2], 1) == [1, -1, 2, 0]
    assert processed([0, 2, 2], 1, presence_penalty=0.5) == [1, -1, 1.5, 0]
    assert processed([0, 2, 2], 1, frequency_penalty=0.5) == [1, -1, 1, 0]
    assert processed([0, 1, 2], 1, repetition_penalty=2.0) == [0.5, -2, 1, 0]
    assert processed([0], 1, logit_bias={3: 5, 0: -100}) == [-99, -1, 2, 5]
    assert processed([0], 1, presence_penalty=1.0) == [1, -1, 2, 0]  # the prompt is not punished
