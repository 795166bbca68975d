"""One tree of errors, with messages for the client's eyes."""

import pickle

import pytest

from domain.errors import (
    ContextOverflow,
    DomainError,
    EngineFailed,
    EngineResting,
    HubFailed,
    HubFault,
    InvalidRequest,
    JobNotFound,
    MemoryBusy,
    ModelBeingPulled,
    ModelInUse,
    ModelNotFound,
    ModelTooLarge,
    ModelUnusable,
    ServerBusy,
    ShuttingDown,
)

ALL = [
    InvalidRequest("no", "stop"),
    ContextOverflow(600, 512),
    ModelNotFound("a/b"),
    ModelTooLarge("It needs more.", 12_000_000_000, 8_000_000_000),
    ModelInUse("a/b", 2),
    ModelBeingPulled("a/b", "7"),
    JobNotFound("7"),
    ServerBusy("later", 2.0),
    MemoryBusy("later", 2.0),
    HubFailed(HubFault.UNREACHABLE, "The hub does not answer."),
    EngineFailed("broken"),
    ModelUnusable("damaged"),
    EngineResting("a/b", 3, 1.5, "It broke."),
    ShuttingDown(),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_is_of_the_tree_and_says_something(error: DomainError) -> None:
    assert isinstance(error, DomainError)
    assert str(error)


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_errors_cross_the_border_of_a_process_whole(error: DomainError) -> None:
    arrived = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_an_overflow_is_a_request_that_can_never_work() -> None:
    error = ContextOverflow(600, 512, "prompt")
    assert isinstance(error, InvalidRequest)
    assert (error.param, error.prompt_tokens, error.context_length) == ("prompt", 600, 512)
    assert "maximum context length is 512 tokens" in str(error)
    assert "600 tokens" in str(error)


def test_errors_carry_what_a_client_needs_to_act() -> None:
    assert InvalidRequest("no").param is None
    assert InvalidRequest("no", "stop").param == "stop"
    assert ModelNotFound("a/b").model == "a/b"
    assert "`a/b`" in str(ModelNotFound("a/b"))
    assert ServerBusy("later", 2.0).retry_after == 2.0
