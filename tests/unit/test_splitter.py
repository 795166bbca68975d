"""The splitter by example: how thoughts, calls and stop strings are told apart from the answer."""

import pytest

from domain.chat import ToolCall
from domain.errors import DomainError
from domain.events import Finished, ReasoningDelta, TextDelta, ToolCallDelta, assemble
from domain.held_text import overlap
from domain.outputs import End, Markup, Piece, PromptProgress
from domain.splitter import Splitter
from tests.unit.marked_text import BROKEN_CALLS, CALL, WEATHER, Setting, split

PLAIN = Setting()


def test_overlap_is_the_longest_end_that_begins_a_mark() -> None:
    assert overlap("say <th", ["<think>", "<tool_call>"]) == 3
    assert overlap("say", ["<think>"]) == 0
    assert overlap("<think>", ["<think>"]) == 0
    assert overlap("aab", ["abc", "aabc"]) == 3
    assert overlap("", ["<think>"]) == 0
    assert overlap("say <", []) == 0


def test_text_is_shown_as_it_comes() -> None:
    events = split(["Hello", ",", " world"], PLAIN)
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["Hello", ",", " world"]


def test_thoughts_are_told_apart_from_the_answer() -> None:
    answer = assemble(split(["<think>\nhm\n</think>\n\nYes."], PLAIN))
    assert (answer.reasoning, answer.text) == ("hm", "Yes.")


def test_a_template_may_open_the_thoughts() -> None:
    answer = assemble(split(["\nhm", "</think>", "Yes."], Setting(opens_thinking=True)))
    assert (answer.reasoning, answer.text) == ("hm", "Yes.")


def test_thoughts_that_never_end_are_thoughts() -> None:
    answer = assemble(split(["<think>", "hm", " \n"], Setting(cause="length")))
    assert (answer.reasoning.strip(), answer.text, answer.reason) == ("hm", "", "length")


def test_a_family_that_does_not_think_may_write_the_marker() -> None:
    answer = assemble(split(["<think>a</think>"], Setting(markup=Markup())))
    assert answer.text == "<think>a</think>"


def test_a_marker_may_be_cut_anywhere() -> None:
    answer = assemble(split(list("a<think>b</think>c"), PLAIN))
    assert (answer.text, answer.reasoning) == ("ac", "b")


def test_what_only_looks_like_a_marker_is_shown_once_that_is_known() -> None:
    events = split(["a <thi", "s"], PLAIN)
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["a", " <this"]


def test_a_tool_call_is_one_event() -> None:
    events = split(["Look:\n<tool_call>", CALL, "</tool_call>"], PLAIN)
    (call,) = (event for event in events if isinstance(event, ToolCallDelta))
    assert (call.index, call.call.name, call.call.arguments) == (0, "weather", '{"city": "Paris"}')
    answer = assemble(events)
    assert (answer.text, answer.reason) == ("Look:", "tool_calls")


def test_calls_are_counted_from_nought() -> None:
    events = split([f"<tool_call>{CALL}</tool_call>\n" * 3], PLAIN)
    assert [e.index for e in events if isinstance(e, ToolCallDelta)] == [0, 1, 2]


def test_without_parallel_tool_calls_the_answer_ends_with_the_first() -> None:
    pieces = [f"<tool_call>{CALL}</tool_call>", f"<tool_call>{CALL}</tool_call>", "more"]
    answer = assemble(split(pieces, Setting(parallel_tool_calls=False, cause="length")))
    assert len(answer.tool_calls) == 1
    assert (answer.text, answer.reason) == ("", "tool_calls")
    assert answer.usage.completion_tokens == 1


def test_without_parallel_tool_calls_one_call_of_a_block_counts() -> None:
    calls = (ToolCall("1", "weather", "{}"), ToolCall("2", "weather", "{}"))
    markup = Markup(None, ("<calls>", "</calls>"), lambda text, tools: calls)
    setting = Setting(markup=markup, parallel_tool_calls=False)
    assert assemble(split(["<calls>both</calls>"], setting)).tool_calls == calls[:1]


def test_without_tools_a_call_is_text() -> None:
    raw = f"<tool_call>{CALL}</tool_call>"
    answer = assemble(split([raw], Setting(tools=())))
    assert (answer.text, answer.tool_calls, answer.reason) == (raw, (), "stop")


@pytest.mark.parametrize("body", BROKEN_CALLS)
@pytest.mark.parametrize("closing", ["</tool_call>", "</tool_ca", ""])
def test_a_broken_call_is_returned_as_text(body: str, closing: str) -> None:
    raw = f"Look: \n<tool_call>{body}{closing}"
    answer = assemble(split(list(raw), PLAIN))
    assert (answer.text, answer.tool_calls, answer.reason) == (raw, (), "stop")


def test_a_call_that_lacks_only_its_closing_marker_is_a_call() -> None:
    answer = assemble(split(["<tool_call>", CALL], PLAIN))
    assert [call.name for call in answer.tool_calls] == ["weather"]


def test_an_empty_closing_marker_means_to_the_end_of_the_answer() -> None:
    markup = Markup(None, ("[CALL]", ""), PLAIN.markup.parse_calls)
    answer = assemble(split(["Look: [CA", "LL]", CALL], Setting(markup=markup)))
    assert answer.text == "Look:"
    assert [call.name for call in answer.tool_calls] == ["weather"]


def test_a_call_may_end_the_thoughts() -> None:
    answer = assemble(split([f"<think>hm<tool_call>{CALL}</tool_call>Done."], PLAIN))
    assert (answer.reasoning, answer.text, len(answer.tool_calls)) == ("hm", "Done.", 1)


def test_a_broken_call_in_the_thoughts_is_a_thought() -> None:
    answer = assemble(split(["<think>hm <tool_call>no</tool_call> so</think>Yes."], PLAIN))
    assert answer.reasoning == "hm <tool_call>no</tool_call> so"
    assert answer.text == "Yes."


def test_a_length_limit_stays_one_after_a_call() -> None:
    pieces = [f"<tool_call>{CALL}</tool_call>", "and"]
    answer = assemble(split(pieces, Setting(cause="length")))
    assert answer.reason == "length"


@pytest.mark.parametrize("pieces", [["one END two"], ["one ", "E", "N", "D", " two"]])
def test_a_stop_string_ends_the_answer_and_is_not_shown(pieces: list[str]) -> None:
    answer = assemble(split(pieces, Setting(stop=("END",), cause="length")))
    assert (answer.text, answer.reason) == ("one ", "stop")


def test_a_stop_string_ends_the_thoughts_too() -> None:
    answer = assemble(split(["<think>one END</think>two"], Setting(stop=("END",))))
    assert (answer.reasoning, answer.text) == ("one ", "")


def test_a_stop_string_inside_a_call_is_left_alone() -> None:
    answer = assemble(split([f"<tool_call>{CALL}</tool_call>"], Setting(stop=("Paris",))))
    assert answer.tool_calls[0].arguments == '{"city": "Paris"}'


def test_the_stop_string_that_ends_first_counts() -> None:
    answer = assemble(split(["abcd"], Setting(stop=("abcd", "c"))))
    assert answer.text == "ab"


def test_a_stop_string_may_stand_around_thoughts() -> None:
    answer = assemble(split(["ax ", "<think>hm</think>", " yb"], Setting(stop=("xy",))))
    assert (answer.text, answer.reasoning, answer.reason) == ("a", "hm", "stop")


def test_what_only_looks_like_a_stop_string_is_shown_once_that_is_known() -> None:
    events = split(["one E", "N", "D"], Setting(stop=("END!",)))
    assert [e.text for e in events if isinstance(e, TextDelta)] == ["one ", "END"]


def test_what_the_engine_held_back_comes_with_the_end() -> None:
    answer = assemble(split(["caf"], PLAIN, left_over="é"))
    assert answer.text == "café"


def test_usage_counts_tokens() -> None:
    pieces = ["<think>", "one", "two", "</think>", "", "Yes", "."]
    usage = assemble(split(pieces, PLAIN)).usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (7, 3)
    assert (usage.completion_tokens, usage.reasoning_tokens) == (7, 4)


def test_nothing_is_counted_after_a_stop_string() -> None:
    usage = assemble(split(["a", "END", "b"], Setting(stop=("END",)))).usage
    assert usage.completion_tokens == 2


def test_progress_is_passed_on() -> None:
    splitter = Splitter(Markup())
    progress = PromptProgress(1, 2)
    assert list(splitter.feed(progress)) == [progress]
    assert not splitter.finished


def test_an_empty_answer_is_finished_all_the_same() -> None:
    splitter = Splitter(PLAIN.markup, tools=(WEATHER,))
    (event,) = splitter.feed(End("stop"))
    assert isinstance(event, Finished)
    assert splitter.finished


def test_no_delta_is_empty() -> None:
    events = split(["", "<think>", " ", "</think>", "", " ", "a", ""], PLAIN)
    assert all(event.text for event in events if isinstance(event, TextDelta | ReasoningDelta))


def test_a_family_that_thinks_without_calls_needs_no_parser() -> None:
    markup = Markup(("<think>", "</think>"))
    answer = assemble(split(["<think>a</think><tool_call>"], Setting(markup=markup)))
    assert (answer.reasoning, answer.text) == ("a", "<tool_call>")


def test_nothing_raises_on_bytes_that_are_no_text() -> None:
    try:
        answer = assemble(split(["\ufffd", "\x00", "\ud800"], PLAIN))
    except DomainError as error:
        pytest.fail(f"odd text is text: {error}")
    assert answer.text == "\ufffd\x00\ud800"


def test_a_piece_is_a_token_even_without_text() -> None:
    assert assemble(split([Piece(""), Piece("")], PLAIN)).usage.completion_tokens == 2
