"""What a command may hold, checked where it is made."""

import math
from typing import Any

import pytest

from domain.chat import ChatCommand, Image, Message, Sampling, Text, require_text
from domain.errors import InvalidRequest
from domain.models import ModelId

MODEL = ModelId("test/model")

BOUNDS: list[tuple[str, Any, Any, float]] = [  # lowest, highest, a step over
    ("temperature", 0.0, 2.0, 0.001),
    ("top_p", 0.0, 1.0, 0.001),
    ("min_p", 0.0, 1.0, 0.001),
    ("presence_penalty", -2.0, 2.0, 0.001),
    ("frequency_penalty", -2.0, 2.0, 0.001),
    ("repetition_penalty", 0.01, 100.0, 0.001),
    ("top_logprobs", 0, 20, 1),
    ("seed", -(2**63), 2**64 - 1, 1),
]
NUMBERS = ["max_tokens", "top_k", *(name for name, *_ in BOUNDS)]


def refused(**settings: Any) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        Sampling(**settings)
    return caught.value


@pytest.mark.parametrize(("name", "low", "high", "step"), BOUNDS)
def test_bounds_are_allowed_and_no_more(name: str, low: Any, high: Any, step: Any) -> None:
    assert getattr(Sampling(**{name: low}), name) == low
    assert getattr(Sampling(**{name: high}), name) == high
    assert refused(**{name: low - step}).param == name
    assert refused(**{name: high + step}).param == name


@pytest.mark.parametrize(("name", "low"), [("max_tokens", 0), ("top_k", 0)])
def test_counts_have_a_lower_bound_only(name: str, low: int) -> None:
    for count in (low, 10**9):
        settings: dict[str, Any] = {name: count}
        assert getattr(Sampling(**settings), name) == count
    assert refused(**{name: low - 1}).param == name


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_finite_number_is_refused(name: str, value: float) -> None:
    assert refused(**{name: value}).param == name


def test_a_bias_is_bounded_too() -> None:
    assert Sampling(logit_bias={0: -100, 5: 100}).logit_bias == {0: -100, 5: 100}
    for bias in ({-1: 0.0}, {0: 100.1}, {0: -100.1}, {0: math.nan}, {0: math.inf}):
        assert refused(logit_bias=bias).param == "logit_bias"


def test_a_number_too_long_to_print_is_refused_like_any_other() -> None:
    assert refused(seed=10**5000).param == "seed"


def test_a_refusal_names_the_bounds() -> None:
    assert str(refused(temperature=3)) == "`temperature` must be between 0 and 2."
    assert str(refused(max_tokens=-1)) == "`max_tokens` must be at least 0."
    assert str(refused(top_k=2**63)) == f"`top_k` must be between 0 and {2**63 - 1}."


def test_stop_strings_hold_something() -> None:
    assert Sampling(stop=(" ", "a")).stop == (" ", "a")
    assert refused(stop=("a", "")).param == "stop"


def test_what_may_be_left_open_is() -> None:
    sampling = Sampling()
    assert (sampling.max_tokens, sampling.seed, sampling.top_logprobs) == (None, None, None)


def test_a_conversation_has_a_message() -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatCommand(MODEL, ())
    assert caught.value.param == "messages"


def test_the_text_of_a_message_is_its_text_parts_joined() -> None:
    message = Message("user", (Text("one "), Image("data:,"), Text("two")))
    assert message.text == "one two"


def test_messages_have_short_forms() -> None:
    short = (Message.user("a"), Message.system("b"), Message.assistant("c"))
    assert [(m.role, m.text) for m in short] == [("user", "a"), ("system", "b"), ("assistant", "c")]


def test_engines_that_only_read_refuse_images() -> None:
    require_text([Message.user("a")])
    with pytest.raises(InvalidRequest) as caught:
        require_text([Message.user("a"), Message("user", (Image("data:,"),))])
    assert caught.value.param == "messages"
