"""Scores stay with the text that they are of, through all that is held back or hidden."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.events import TextDelta, assemble
from domain.outputs import Markup, Piece, TokenScore
from tests.unit.marked_text import (
    BROKEN_CALLS,
    CALL,
    MARKERS,
    SPACES,
    WORDS,
    Reading,
    Setting,
    cut_up,
    raw_texts,
    settings_of_answers,
    split,
)


def scored(texts: list[str]) -> list[Piece]:
    """Each piece with a score that no other has."""
    return [
        Piece(text, TokenScore(text, text.encode("utf-8", "replace"), -1.0 - n))
        for n, text in enumerate(texts)
    ]


def due(pieces: list[Piece], setting: Setting) -> list[TokenScore]:
    """The scores of the tokens of which something is shown in the answer.

    A token without characters is a part of the character that follows it.
    """
    shown = set(Reading("".join(piece.text for piece in pieces), setting).answer)
    scores: list[TokenScore] = []
    start = 0
    for piece in pieces:
        mine = range(start, start + max(len(piece.text), 1))
        if piece.score and not shown.isdisjoint(mine):
            scores.append(piece.score)
        start += len(piece.text)
    return scores


def tokens(texts: list[str], setting: Setting | None = None) -> list[str]:
    """The tokens whose scores are reported."""
    answer = assemble(split(scored(texts), setting or Setting()))
    return [score.token for score in answer.scores]


def test_every_token_of_plain_text_is_reported() -> None:
    assert tokens(["Hello", ",", " world"]) == ["Hello", ",", " world"]


def test_markers_and_thoughts_are_not_reported() -> None:
    texts = ["<think>", "\n", "hm", "\n", "</think>", "\n\n", "Yes", "."]
    assert tokens(texts) == ["Yes", "."]


def test_a_call_is_not_reported() -> None:
    assert tokens(["Look", "\n", "<tool_call>", CALL, "</tool_call>"]) == ["Look"]


def test_a_stop_string_is_not_reported() -> None:
    assert tokens(["one", " E", "ND", " two"], Setting(stop=("END",))) == ["one", " "]
    assert tokens(["one", "E", "ND", " two"], Setting(stop=("END",))) == ["one"]


def test_a_token_that_ends_a_marker_and_begins_the_answer_is_reported() -> None:
    assert tokens(["<think>", "hm", "</think", ">Yes", "."]) == ["Yes", "."]


def test_an_unfinished_character_comes_with_the_one_that_it_began() -> None:
    events = split(scored(["caf", "", "é", "!"]), Setting())
    deltas = [event for event in events if isinstance(event, TextDelta)]
    assert [(d.text, [s.token for s in d.scores]) for d in deltas] == [
        ("caf", ["caf"]),
        ("é", ["", "é"]),
        ("!", ["!"]),
    ]


def test_a_broken_call_is_reported_like_the_text_that_it_is() -> None:
    texts = ["Look", "<tool_call>", "no", "</tool_call>", "."]
    assert tokens(texts) == texts


def test_blanks_before_a_broken_call_are_reported() -> None:
    texts = ["Look", "\n", "<tool_call>", "no", "</tool_call>", "."]
    assert tokens(texts) == texts


def test_a_token_that_holds_a_whole_marker_and_shows_something_is_reported() -> None:
    assert tokens(["<think>", "hm.</think>Yes", "!"]) == ["Yes", "!"]
    assert tokens(["<think>", "hm", "\n</think>\nYes", "!"]) == ["Yes", "!"]
    assert tokens(["\n<think>hm</think>Yes", "!"]) == ["Yes", "!"]


@given(st.lists(st.sampled_from(WORDS + SPACES)))
def test_the_bytes_of_the_scores_are_the_text(texts: list[str]) -> None:
    answer = assemble(split(scored(texts), Setting()))
    assert b"".join(score.raw for score in answer.scores) == answer.text.encode()


@given(raw_texts.flatmap(cut_up))
def test_without_markup_every_piece_that_shows_something_is_reported(texts: list[str]) -> None:
    reported = tokens(texts, Setting(markup=Markup()))
    assert reported == [text for n, text in enumerate(texts) if any(texts[n:])]


tokenized = st.lists(
    st.sampled_from(WORDS + SPACES + MARKERS + BROKEN_CALLS + (CALL, "")), max_size=15
)


def check_reported(texts: list[str], setting: Setting) -> None:
    """Each token that is due, once, and together all of the text."""
    pieces = scored(texts)
    answer = assemble(split(pieces, setting))
    assert [score.logprob for score in answer.scores] == [s.logprob for s in due(pieces, setting)]
    assert b"".join(score.raw for score in answer.scores) == answer.text.encode("utf-8", "replace")


@settings(max_examples=500)
@given(tokenized, settings_of_answers)
def test_tokens_are_reported_when_shown_where_markers_are_tokens(
    texts: list[str], setting: Setting
) -> None:
    check_reported(texts, setting)


@settings(max_examples=500)
@given(raw_texts, settings_of_answers)
def test_tokens_are_reported_when_shown_where_every_character_is_one(
    raw: str, setting: Setting
) -> None:
    pieces = scored(list(raw))
    events = split(pieces, setting)
    assert list(assemble(events).scores) == due(pieces, setting)
    for delta in events:
        if isinstance(delta, TextDelta):
            assert delta.text == "".join(score.token for score in delta.scores)


@settings(max_examples=500)
@given(raw_texts.flatmap(cut_up), settings_of_answers)
def test_tokens_are_reported_when_shown_however_text_is_cut(
    texts: list[str], setting: Setting
) -> None:
    check_reported(texts, setting)


@settings(max_examples=700)
@given(raw_texts.flatmap(cut_up), settings_of_answers)
def test_scores_change_nothing_else(texts: list[str], setting: Setting) -> None:
    """Tokens without a score take a shorter way, where nothing is held: it leads to the same."""
    with_scores = split(scored(texts), setting)
    bare = [replace(e, scores=()) if isinstance(e, TextDelta) else e for e in with_scores]
    assert [event for event in bare if event != TextDelta("")] == split(texts, setting)
