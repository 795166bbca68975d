"""mlx-lm's own state machine cuts text the same way, but for white space around markers."""

from hypothesis import given, settings
from hypothesis import strategies as st
from mlx_lm.generate import TextStateMachine

from domain.events import assemble
from tests.unit.marked_text import (
    CALL,
    WEATHER,
    Setting,
    cut_up,
    parse_calls,
    plain_texts,
    quiet_texts,
    raw_texts,
    split,
    squeeze,
)

THINK, THOUGHT, CALL_OPENS, CALL_CLOSES = "<think>", "</think>", "<tool_call>", "</tool_call>"


def machine(*, tools: bool) -> TextStateMachine:
    """As mlx_lm.generate.make_text_state_machine builds it from a tokenizer."""
    calls = [(CALL_OPENS, "tool")] if tools else []
    return TextStateMachine(
        {
            "normal": [(THINK, "reasoning"), *calls],
            "reasoning": [(THOUGHT, "normal"), *calls],
            "tool": [(CALL_CLOSES, "normal")],
        }
    )


def segments(pieces: list[str], *, tools: bool, opens_thinking: bool) -> list[tuple[str, str]]:
    """(state, text) as mlx-lm's server gathers them."""
    state = machine(tools=tools).make_state("reasoning" if opens_thinking else "normal")
    found: list[tuple[str, str]] = []
    for piece in pieces:
        state, more = TextStateMachine.split(state, piece)
        found += more
    state, held, name = TextStateMachine.flush(state)
    return [*found, (name, held)]


def joined(found: list[tuple[str, str]], state: str) -> str:
    return squeeze("".join(text for name, text in found if name == state))


@settings(max_examples=400)
@given(raw_texts.flatmap(cut_up), st.booleans())
def test_thoughts_of_any_text_are_found_where_mlx_lm_finds_them(
    pieces: list[str], opens_thinking: bool
) -> None:
    answer = assemble(split(pieces, Setting(tools=(), opens_thinking=opens_thinking)))
    found = segments(pieces, tools=False, opens_thinking=opens_thinking)
    assert squeeze(answer.text) == joined(found, "normal")
    assert squeeze(answer.reasoning) == joined(found, "reasoning")


well_formed = st.one_of(
    plain_texts,
    quiet_texts.map(lambda text: f"{THINK}{text}{THOUGHT}"),
    st.just(f"{CALL_OPENS}\n{CALL}\n{CALL_CLOSES}"),
)


@settings(max_examples=400)
@given(st.lists(well_formed).map("".join).flatmap(cut_up), st.booleans())
def test_calls_of_well_formed_text_are_found_where_mlx_lm_finds_them(
    pieces: list[str], opens_thinking: bool
) -> None:
    answer = assemble(split(pieces, Setting(opens_thinking=opens_thinking)))
    found = segments(pieces, tools=True, opens_thinking=opens_thinking)
    assert squeeze(answer.text) == joined(found, "normal")
    assert squeeze(answer.reasoning) == joined(found, "reasoning")
    (call,) = parse_calls(CALL, (WEATHER,))
    assert joined(found, "tool") == squeeze(CALL) * len(answer.tool_calls)
    assert {c.arguments for c in answer.tool_calls} <= {call.arguments}
