"""What followed the last tokens before: found wherever a text repeats itself."""

from hypothesis import given
from hypothesis import strategies as st

from domain.prompt_lookup import PromptLookup

texts = st.lists(st.integers(0, 3), max_size=60)  # few tokens, so that they come again


def read(tokens: list[int], most: int = 8) -> PromptLookup:
    lookup = PromptLookup(most)
    lookup.read(tokens)
    return lookup


def ends(text: list[int], ngram: list[int]) -> list[int]:
    """Where the n-gram ends within the text, but for the very end."""
    return [end for end in range(3, len(text)) if text[end - 3 : end] == ngram]


@given(texts)
def test_it_guesses_where_the_last_three_tokens_stood_before(text: list[int]) -> None:
    lookup = read(text)
    before = ends(text, text[-3:]) if len(text) > 3 else []
    assert len(lookup) == len(text)
    assert lookup.count == (2 if before else 0)
    if before:
        assert lookup.guess(1)[0] in {text[end] for end in before}


@given(texts, st.integers(1, 16))
def test_guesses_go_on_as_one_of_those_places_does(text: list[int], count: int) -> None:
    lookup = read(text)
    if not lookup.count:
        return
    guesses = lookup.guess(count)
    assert len(guesses) == count
    whole = text + guesses
    assert any(whole[end : end + count] == guesses for end in ends(text, text[-3:]))


@given(st.lists(st.integers(0, 99), min_size=1, max_size=9, unique=True), st.integers(1, 16))
def test_a_text_that_turns_in_circles_is_known_for_good(period: list[int], count: int) -> None:
    text = period * 30
    lookup = read(text[: len(period) * 2 + 3])
    done = len(period) * 2 + 3
    assert lookup.guess(count) == text[done : done + count]


def test_it_keeps_to_the_place_that_was_right() -> None:
    text = [7, 8, 1, 2, 3, 4, 5, 0, 1, 2, 3, 9, 6]
    assert read([*text, 1, 2, 3]).guess(2) == [9, 6]  # the latest
    assert read([*text, 7, 8, 1, 2, 3]).guess(2) == [4, 5]


@given(texts, texts)
def test_reading_at_once_and_bit_by_bit_is_the_same(first: list[int], second: list[int]) -> None:
    one, other = read(first + second), read(first)
    for token in second:
        other.read([token])
    assert one.count == other.count
    if one.count:
        assert one.guess(8) == other.guess(8)


def test_more_is_guessed_after_all_was_right_and_less_after_it_was_wrong() -> None:
    lookup = read([1, 2, 3, 1, 2, 3])
    asked = []
    for right in (2, 4, 8, 8, 5, 5, 0, 1):
        asked.append(lookup.count)
        lookup.judge(lookup.count, min(right, lookup.count))
    assert asked == [2, 4, 8, 8, 8, 5, 8, 2]
    assert lookup.count == 2


def test_never_more_than_the_most() -> None:
    lookup = read([1, 2, 3, 1, 2, 3], most=1)
    assert lookup.count == 1
    lookup.judge(1, 1)
    assert lookup.count == 1
