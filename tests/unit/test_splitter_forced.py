"""An answer that was forced to be one call, with or without thoughts before it."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adapters.scripted.engine import MARKUP
from domain.chat import Tool
from domain.events import ChatAnswer, assemble
from domain.outputs import End, Piece, PromptProgress
from domain.splitter import Splitter

TOOLS = (Tool("f"),)


def forced(*texts: str, opens_thinking: bool = False, reason: str = "stop") -> ChatAnswer:
    splitter = Splitter(MARKUP, tools=TOOLS, forced_call=True)
    outputs = [PromptProgress(1, 1, opens_thinking=opens_thinking), *map(Piece, texts)]
    ending = End("stop") if reason == "stop" else End("length")
    return assemble(event for output in [*outputs, ending] for event in splitter.feed(output))


def call(value: object) -> str:
    return json.dumps({"name": "f", "arguments": {"x": value}})


def test_a_bare_call_is_a_call() -> None:
    answer = forced(call(1))
    assert [c.name for c in answer.tool_calls] == ["f"]
    assert (answer.text, answer.reason) == ("", "tool_calls")


def test_thoughts_may_come_first() -> None:
    answer = forced("<think>\nHm.\n</think>\n\n" + call(1))
    assert (answer.reasoning, len(answer.tool_calls)) == ("Hm.", 1)
    opened = forced("Hm.\n</think>" + call(1), opens_thinking=True)
    assert (opened.reasoning, len(opened.tool_calls)) == ("Hm.", 1)


def test_a_marker_inside_the_arguments_is_theirs() -> None:
    answer = forced(call("<think>no</think>"))
    assert json.loads(answer.tool_calls[0].arguments) == {"x": "<think>no</think>"}
    assert answer.reasoning == ""


def test_a_call_that_is_cut_short_is_text() -> None:
    answer = forced(call(1)[:-3], reason="length")
    assert (answer.text, answer.tool_calls, answer.reason) == (call(1)[:-3], (), "length")


@given(
    thoughts=st.sampled_from(["", "<think>a</think>", "<think>\n b \n</think>\n"]),
    value=st.text('<think/>"ab ', max_size=12),
    cuts=st.lists(st.integers(0, 80)),
)
def test_any_chunking_gives_the_same_call(thoughts: str, value: str, cuts: list[int]) -> None:
    text = thoughts + call(value)
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    parts = [text[start:end] for start, end in pairwise(places)]
    whole, cut = forced(text), forced(*parts)
    assert [c.arguments for c in cut.tool_calls] == [c.arguments for c in whole.tool_calls]
    assert json.loads(whole.tool_calls[0].arguments) == {"x": value}
    assert cut.reasoning == whole.reasoning
