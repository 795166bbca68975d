"""What is remembered is what was used last."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from application.remembered import Remembered

MOST = 3
uses = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), max_size=40)


def last_used(keys: Sequence[int]) -> set[int]:
    """The MOST that were used last."""
    return set(list(dict.fromkeys(reversed(keys)))[:MOST])


@given(uses)
def test_the_last_that_were_used_are_known(uses: list[tuple[bool, int]]) -> None:
    remembered: Remembered[int, str] = Remembered(MOST)
    used: list[int] = []
    for asked, key in uses:
        known = key in last_used(used)
        if asked:
            assert remembered.get(key) == (str(key) if known else None)
        else:
            remembered.put(key, str(key))
        if known or not asked:
            used.append(key)


def test_a_later_word_replaces_an_earlier_one() -> None:
    remembered: Remembered[str, int] = Remembered(MOST)
    remembered.put("a", 1)
    remembered.put("a", 2)
    assert remembered.get("a") == 2
