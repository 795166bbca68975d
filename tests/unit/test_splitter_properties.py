"""What holds for any text, however it is cut up."""

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.events import (
    ChatAnswer,
    Finished,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    assemble,
)
from domain.outputs import Markup, PromptProgress
from tests.unit.marked_text import (
    BROKEN_CALLS,
    CALL,
    Reading,
    Setting,
    cut_up,
    plain_texts,
    quiet_texts,
    raw_texts,
    settings_of_answers,
    split,
    squeeze,
    stop_strings,
)

texts_in_pieces = raw_texts.flatmap(cut_up)


def said(answer: ChatAnswer) -> tuple[object, ...]:
    """All of it but the token counts, which are the pieces'."""
    calls = [(call.name, call.arguments) for call in answer.tool_calls]
    return answer.text, answer.reasoning, calls, answer.reason


@settings(max_examples=5000)
@given(texts_in_pieces, settings_of_answers)
def test_any_chunking_gives_the_same_answer(pieces: list[str], setting: Setting) -> None:
    whole = assemble(split(["".join(pieces)], setting))
    assert said(assemble(split(pieces, setting))) == said(whole)
    assert said(assemble(split("".join(pieces), setting))) == said(whole)
    assert said(assemble(split(pieces[:-1], setting, left_over=pieces[-1]))) == said(whole)


@settings(max_examples=700)
@given(texts_in_pieces, settings_of_answers)
def test_the_answer_is_that_of_a_plain_reading(pieces: list[str], setting: Setting) -> None:
    expected = Reading("".join(pieces), setting)
    calls = [(call.name, call.arguments) for call in expected.calls]
    assert said(assemble(split(pieces, setting))) == (
        expected.text,
        expected.reasoning,
        calls,
        expected.reason,
    )


@settings(max_examples=300)
@given(texts_in_pieces, settings_of_answers)
def test_no_stop_string_is_ever_shown(pieces: list[str], setting: Setting) -> None:
    answer = assemble(split(pieces, setting))
    assert not [stop for stop in setting.stop if stop in answer.text or stop in answer.reasoning]


@given(raw_texts.flatmap(cut_up), st.sampled_from(["stop", "length"]))
def test_without_markup_and_stops_text_is_conserved(pieces: list[str], cause: str) -> None:
    events = split(pieces, Setting(markup=Markup(), cause=cause))  # type: ignore[arg-type]
    answer = assemble(events)
    assert answer.text == "".join(pieces)
    assert answer.reason == cause
    assert [e.text for e in events if isinstance(e, TextDelta)] == [p for p in pieces if p]


@given(plain_texts, st.data())
def test_text_without_markers_is_conserved_to_the_last_blank(
    text: str, data: st.DataObject
) -> None:
    text = text.replace("<think>", "").replace("<tool_call>", "")
    answer = assemble(split(data.draw(cut_up(text)), Setting()))
    assert answer.text == text


broken = st.sampled_from([f"<tool_call>{body}</tool_call>" for body in BROKEN_CALLS])


@given(st.lists(quiet_texts | broken), st.sampled_from(["", "<tool_call>", "<tool_"]), st.data())
def test_broken_calls_are_conserved_to_the_last_blank(
    parts: list[str], cut_off: str, data: st.DataObject
) -> None:
    raw = "".join(parts) + cut_off
    answer = assemble(split(data.draw(cut_up(raw)), Setting()))
    assert (answer.text, answer.tool_calls) == (raw, ())


sections = st.one_of(
    st.tuples(st.just("text"), quiet_texts),
    st.tuples(st.just("thoughts"), quiet_texts),
    st.tuples(st.just("call"), st.just(CALL)),
    st.tuples(st.just("broken"), broken),
)


@given(st.lists(sections), st.data())
def test_all_that_is_no_marker_comes_out_where_it_belongs(
    sections: list[tuple[str, str]], data: st.DataObject
) -> None:
    forms = {"thoughts": "<think>{}</think>", "call": "<tool_call>{}</tool_call>"}
    raw = "".join(forms.get(kind, "{}").replace("{}", text) for kind, text in sections)
    answer = assemble(split(data.draw(cut_up(raw)), Setting()))

    def written(*kinds: str) -> str:
        return squeeze("".join(text for kind, text in sections if kind in kinds))

    assert squeeze(answer.text) == written("text", "broken")
    assert squeeze(answer.reasoning) == written("thoughts")
    assert len(answer.tool_calls) == [kind for kind, _ in sections].count("call")


@settings(max_examples=300)
@given(texts_in_pieces, settings_of_answers)
def test_events_keep_their_grammar(pieces: list[str], setting: Setting) -> None:
    kinds = [type(event) for event in split(pieces, setting)]
    assert kinds[0] is PromptProgress
    assert kinds[-1] is Finished
    assert set(kinds[1:-1]) <= {TextDelta, ReasoningDelta, ToolCallDelta}


@settings(max_examples=300)
@given(texts_in_pieces, settings_of_answers)
def test_usage_counts_the_pieces_that_were_read(pieces: list[str], setting: Setting) -> None:
    usage = assemble(split(pieces, setting)).usage
    unread = pieces[usage.completion_tokens :]
    assert said(assemble(split(pieces[: usage.completion_tokens], setting))) == said(
        assemble(split(pieces, setting))
    )
    assert not unread or Reading("".join(pieces), setting).stopped
    assert usage.reasoning_tokens <= usage.completion_tokens


@given(st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_usage_counts_thoughts_with_their_markers(before: int, inside: int, after: int) -> None:
    pieces = ["a"] * before + ["<think>"] + ["b"] * inside + ["</think>"] + ["c"] * after
    assert assemble(split(pieces, Setting())).usage.reasoning_tokens == inside + 2


@given(stop_strings, plain_texts.flatmap(cut_up))
def test_a_stop_string_hides_nothing_before_it(stop: tuple[str, ...], pieces: list[str]) -> None:
    setting = Setting(stop=stop, markup=Markup())
    answer = assemble(split(pieces, setting))
    raw = "".join(pieces)
    assert raw.startswith(answer.text)
    hidden = raw[len(answer.text) :]
    assert not hidden or hidden.startswith(stop)
