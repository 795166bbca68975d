"""Values are counted by bytes as a parser would find them, however the bytes are cut up."""

import itertools
import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.http.json_values import ValueCount

awkward = st.text(st.sampled_from('\\"{}[]:,aé'))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | awkward,
    lambda inner: st.lists(inner) | st.dictionaries(awkward, inner),
    max_leaves=20,
)


def parts(value: object) -> Iterator[int]:
    if isinstance(value, dict):
        yield 25 + 25 * len(value) + max(len(value) - 1, 0)
        for inner in value.values():
            yield from parts(inner)
    elif isinstance(value, list):
        yield 25 + max(len(value) - 1, 0)
        for inner in value:
            yield from parts(inner)


@given(values, st.lists(st.integers(0, 200)), st.booleans())
def test_as_a_parser_would(value: object, cuts: list[int], as_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=as_ascii).encode()
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    count = ValueCount()
    for start, end in itertools.pairwise(places):
        count.feed(text[start:end])
    assert count.total == sum(parts(value)) // 25


@pytest.mark.parametrize("tail", [b'\\"{', b'\\\\\\"{', b"\\u005b", b"{[:,"])
def test_what_a_string_holds_counts_nothing(tail: bytes) -> None:
    count = ValueCount()
    for byte in b'"' + tail * 100 + b'"':
        count.feed(bytes([byte]))
    assert count.total == 0
    count.feed(b"{")
    assert count.total == 1
