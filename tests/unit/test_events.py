"""The whole answer that the events add up to."""

import pytest

from domain.chat import ToolCall
from domain.events import (
    ChatAnswer,
    ChatEvent,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    Usage,
    assemble,
)
from domain.outputs import PromptProgress, TokenScore

USAGE = Usage(5, 4, 3, 2)
SCORES = tuple(TokenScore(token, token.encode(), -1.0) for token in "abc")
CALLS = tuple(ToolCall(f"call_{n}", "weather", "{}") for n in range(2))


def test_an_answer_is_its_events_added_up() -> None:
    events: list[ChatEvent] = [
        PromptProgress(5, 5),
        ReasoningDelta("h"),
        ReasoningDelta("m"),
        TextDelta("a", SCORES[:1]),
        ToolCallDelta(0, CALLS[0]),
        TextDelta("bc", SCORES[1:]),
        ToolCallDelta(1, CALLS[1]),
        Finished("tool_calls", USAGE),
    ]
    assert assemble(events) == ChatAnswer("abc", "hm", CALLS, SCORES, "tool_calls", USAGE)


def test_an_answer_may_be_empty() -> None:
    answer = assemble([Finished("stop", Usage())])
    assert answer == ChatAnswer("", "", (), (), "stop", Usage())


@pytest.mark.parametrize("events", [[], [PromptProgress(1, 1), TextDelta("a")]])
def test_without_an_end_there_is_no_answer(events: list[ChatEvent]) -> None:
    with pytest.raises(ValueError, match="without Finished"):
        assemble(events)
