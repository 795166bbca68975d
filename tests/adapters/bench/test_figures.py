"""The figures of known times, exactly."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.bench.figures import (
    MEASURES,
    Figures,
    Ratio,
    Sample,
    Times,
    gaps_within,
    percentile,
    pooled,
    ratio,
    sample,
)
from adapters.bench.reply import Failure, Reply

A = Reply(
    sent=10.0,
    ended=14.0,
    arrivals=(11.0, 12.0, 14.0),
    chunks=3,
    prompt_tokens=100,
    output_tokens=4,
    cached_tokens=60,
    counted=True,
)
B = Reply(sent=10.5, ended=13.0, arrivals=(12.5, 13.0), chunks=2, output_tokens=2)
FAILED = Reply(sent=10.0, ended=20.0, failure=Failure("http 429", "later"))


def test_a_sample_exactly() -> None:
    assert sample([A, B], at_once=True) == Sample(
        seconds=4.0,
        replies=2,
        all_started=(2.5,),
        first_token=(1.0, 2.0),
        gaps=(1.0, 2.0, 0.5),
        per_token=(1.0, 0.5),
        end_to_end=(4.0, 2.5),
        prompt_tokens=100,
        cached_tokens=60,
        output_tokens=6,
        chunks=5,
        uncounted=1,
    )


def test_failures_are_counted_and_nothing_else_of_them() -> None:
    one = sample([A, FAILED, FAILED], at_once=True)
    assert (one.replies, one.failures, one.details) == (1, {"http 429": 2}, {"http 429": "later"})
    assert one.first_token == (1.0,)
    assert one.all_started == ()  # not all have one
    assert one.seconds == 10.0  # the time they took was spent


def test_nothing_at_all() -> None:
    figures = Figures.of(sample([]))
    assert (figures.output_rate, figures.first_token, figures.all_started) == (None, None, None)
    assert all(measure.value(figures) is None for measure in MEASURES)


def test_waves_have_no_time_when_all_started() -> None:
    assert sample([A, B]).all_started == ()


def test_an_answer_of_no_tokens_is_answered() -> None:
    one = sample([Reply(sent=1.0, ended=2.0, counted=True)], at_once=True)
    assert (one.replies, one.end_to_end, one.first_token, one.all_started) == (1, (1.0,), (), ())


def test_gaps_that_overlap_a_time() -> None:
    assert gaps_within([A, B, FAILED], 12.0, 12.6).gaps == (2.0, 0.5)
    assert gaps_within([A], 14.0, 20.0).gaps == ()


def test_figures_exactly() -> None:
    figures = Figures.of(sample([A, B]))
    assert (figures.output_rate, figures.total_rate, figures.chunk_rate) == (1.5, 26.5, 1.25)
    assert figures.first_token == Times(2, 1.0, 2.0, 2.0)
    assert figures.gap == Times(3, 1.0, 2.0, 2.0)


def test_rounds_are_pooled() -> None:
    both = pooled([sample([A], at_once=True), sample([B, FAILED], at_once=True)])
    assert both.seconds == 4.0 + 10.0
    assert both.first_token == (1.0, 2.0)
    assert both.all_started == (1.0,)
    assert (both.replies, both.failures) == (2, {"http 429": 1})
    assert (both.prompt_tokens, both.output_tokens, both.cached_tokens) == (100, 6, 60)
    assert pooled([both]) == both


@pytest.mark.parametrize(
    ("share", "expected"), [(0.01, 1), (0.5, 50), (0.505, 51), (0.99, 99), (0.991, 100), (1, 100)]
)
def test_percentiles_of_one_to_a_hundred(share: float, expected: int) -> None:
    assert percentile(range(100, 0, -1), share) == expected


@given(st.lists(st.integers(-1000, 1000), min_size=1), st.floats(0.001, 1))
def test_a_percentile_is_the_least_value_that_enough_are_not_above(
    values: list[int], share: float
) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


@given(st.lists(st.integers(), min_size=1))
def test_the_median_is_the_lower_one(values: list[int]) -> None:
    assert percentile(values, 0.5) == statistics.median_low(values)


def test_ratios_of_all_and_of_each_round() -> None:
    ours = [Sample(seconds=1, replies=1, output_tokens=n) for n in (30, 50)]
    theirs = [Sample(seconds=2, replies=1, output_tokens=n) for n in (20, 20)]
    rate = next(measure for measure in MEASURES if measure.key == "output_rate")
    assert ratio(rate, ours, theirs) == Ratio(4.0, 3.0, 5.0)
    started = next(measure for measure in MEASURES if measure.key == "all_started")
    assert ratio(started, ours, theirs) is None


def test_a_server_that_failed_has_no_ratio() -> None:
    rate = next(measure for measure in MEASURES if measure.key == "output_rate")
    assert ratio(rate, [sample([A])], [sample([FAILED])]) is None
    assert ratio(rate, [sample([FAILED])], [sample([A])]) is None


def test_measures_have_names_of_their_own() -> None:
    assert len({measure.key for measure in MEASURES}) == len(MEASURES)
    assert len({measure.label for measure in MEASURES}) == len(MEASURES)
