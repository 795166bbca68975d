"""When guesses pay: found out soon, asked again rarely."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.memory import CacheLayers, MemoryProfile
from domain.speculation import Payoff

seconds = st.floats(1e-5, 1.0)
guesses_right = st.integers(0, 16)


@dataclass
class Decoding:
    """Steps of constant cost, drafted where the policy says so. step: what a drafted one takes."""

    plain: float
    step: float
    gives: int
    payoff: Payoff = field(default_factory=Payoff)
    tokens: int = 0
    drafted: int = 0  # tokens of drafted steps
    spent: float = 0.0

    def run(self, tokens: int, delay: float = 0.0, expected: float = 128.0) -> "Decoding":
        end = self.tokens + tokens
        while self.tokens < end:
            if self.payoff.pays(delay, expected):
                self.payoff = self.payoff.after_drafted(self.step, self.gives)
                self.tokens += self.gives
                self.drafted += self.gives
                self.spent += self.step
            else:
                self.payoff = self.payoff.after_plain(self.plain)
                self.tokens += 1
                self.spent += self.plain
        return self


@settings(max_examples=20)
@given(seconds, guesses_right, st.floats(1.01, 20.0))
def test_a_draft_that_never_pays_is_soon_left_alone(plain: float, right: int, worse: float) -> None:
    decoding = Decoding(plain, plain * (right + 1) * worse, right + 1).run(10_000)
    # Trials of 8 steps, after rests of 64, 256, 1,024, 4,096, 4,096 … ordinary ones.
    assert decoding.drafted <= 6 * 8 * (right + 1)
    before = decoding.drafted
    assert decoding.run(20_000).drafted - before <= 5 * 8 * (right + 1)


@settings(max_examples=20)
@given(seconds, guesses_right, st.floats(0.01, 0.99))
def test_a_draft_that_pays_is_used(plain: float, right: int, better: float) -> None:
    decoding = Decoding(plain, plain * (right + 1) * better, right + 1).run(10_000)
    assert decoding.drafted >= 9_500
    assert decoding.spent < plain * decoding.tokens


@settings(max_examples=20)
@given(seconds, guesses_right, st.floats(1.05, 20.0), st.floats(0.1, 0.9))
def test_a_draft_that_comes_to_pay_is_found_out(
    plain: float, right: int, worse: float, better: float
) -> None:
    decoding = Decoding(plain, plain * (right + 1) * worse, right + 1).run(20_000)
    decoding.step = plain * (right + 1) * better
    decoding.run(5_000)
    before = decoding.drafted
    assert decoding.run(2_000).drafted - before >= 1_800


@settings(max_examples=20)
@given(seconds, guesses_right, st.floats(1.2, 20.0), st.floats(0.1, 0.9))
def test_a_draft_that_no_longer_pays_is_given_up(
    plain: float, right: int, worse: float, better: float
) -> None:
    decoding = Decoding(plain, plain * (right + 1) * better, right + 1).run(5_000)
    assert decoding.payoff.pays(0.0, 128.0) or decoding.payoff.rest
    decoding.step = plain * (right + 1) * worse
    before = decoding.drafted
    assert decoding.run(10_000).drafted - before <= (64 + 9 * 8) * (right + 1)


@given(seconds, st.floats(1.0, 1000.0), st.floats(0.0, 3.0))
def test_what_the_draft_has_to_read_first_counts(
    plain: float, expected: float, share: float
) -> None:
    payoff = Decoding(plain, plain, 4).run(1_000).payoff  # a quarter of the time
    while payoff.rest:
        payoff = payoff.after_plain(plain)
    saved = (plain - payoff.drafted.per_token) * expected
    assert payoff.pays(saved * share, expected) == (share < 1) or abs(share - 1) < 1e-6


def test_nothing_is_tried_before_it_is_known_what_a_token_takes() -> None:
    payoff = Payoff()
    for _ in range(8):
        assert not payoff.pays(0.0, 1000.0)
        payoff = payoff.after_plain(0.01)
    assert payoff.pays(0.0, 1000.0)
    assert not payoff.pays(6.0, 1000.0)  # half of the ten seconds is what is hoped for


def test_ordinary_steps_are_measured_again_now_and_then() -> None:
    decoding = Decoding(1.0, 2.0, 4).run(20_000)
    assert decoding.tokens - decoding.drafted >= 80


@settings(max_examples=20)
@given(seconds, st.integers(1, 16), st.floats(0.1, 0.95), st.floats(0.2, 5.0))
def test_a_machine_that_slows_down_is_not_the_draft_s_fault(
    plain: float, right: int, better: float, factor: float
) -> None:
    decoding = Decoding(plain, plain * (right + 1) * better, right + 1).run(5_000)
    decoding.plain *= factor
    decoding.step *= factor
    before = decoding.drafted
    assert decoding.run(5_000).drafted - before >= 4_700


def test_two_models_together_need_what_each_needs() -> None:
    one = MemoryProfile(100, (CacheLayers(4), CacheLayers(2, window=512)), 30, 2)
    other = MemoryProfile(10, (CacheLayers(1, fixed=7),), 3, 1)
    both = one.beside(other)
    for tokens, rows in ((1, 1), (300, 4), (5000, 2)):
        assert both.kv(tokens, rows) == one.kv(tokens, rows) + other.kv(tokens, rows)
        needs = [profile.need(tokens, rows).total for profile in (one, other, both)]
        assert needs[2] == needs[0] + needs[1]
