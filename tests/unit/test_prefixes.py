"""Remembered prefixes, against a list that is searched from end to end."""

import time
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.prefixes import Entry, Prefixes
from domain.token_trie import TokenTrie, pack, shared_length, unpack

BUDGET = 10

Index = Prefixes[object]


def entry(tokens: list[int], *, trimmable: bool = True, size: int = 1, scope: str = "") -> Entry:
    return Entry(scope, pack(tokens), trimmable, size, object())


def index(*entries: Entry, budget: int = BUDGET) -> Index:
    made = Index(budget)
    for one in entries:
        made.add(one)
    return made


def common(one: list[int], other: list[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((n for n, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


@dataclass
class Naive:
    """Entries from the least recently used to the most."""

    entries: list[Entry] = field(default_factory=list)

    def served(self, scope: str, tokens: list[int]) -> int:
        def by(one: Entry) -> int:
            shared = common(one.tokens, tokens)
            return shared if one.trimmable or shared == one.length else 0

        return max((by(one) for one in self.entries if one.scope == scope), default=0)

    def add(self, new: Entry) -> list[Entry]:
        def goes(old: Entry) -> bool:
            beneath = common(old.tokens, new.tokens) == old.length
            return beneath and (new.trimmable or old.length == new.length)

        gone = [old for old in self.entries if old.scope == new.scope and goes(old)]
        self.entries = [old for old in self.entries if old not in gone]
        while sum(old.size for old in self.entries) + new.size > BUDGET:
            gone.append(self.entries.pop(0))
        self.entries.append(new)
        return gone

    def touch(self, used: Entry) -> None:
        self.entries.remove(used)
        self.entries.append(used)


sequences = st.lists(st.integers(0, 2), min_size=1, max_size=6)
scopes = st.sampled_from(["", "other"])
entries = st.builds(
    Entry,
    scopes,
    sequences.map(pack),
    st.booleans(),
    st.integers(1, BUDGET),
    st.none(),
)
steps = st.one_of(
    st.tuples(st.just("add"), entries),
    st.tuples(st.just("find"), st.tuples(scopes, sequences)),
    st.tuples(st.just("shrink"), st.integers(0, BUDGET)),
    st.tuples(st.just("drop"), st.integers(0, BUDGET)),
)


@settings(max_examples=300)
@given(st.lists(steps, max_size=40))
def test_it_is_a_list_searched_from_end_to_end(plan: list[tuple[str, object]]) -> None:
    real, naive = Index(BUDGET), Naive()
    for step, what in plan:
        match step, what:
            case "add", Entry() as new:
                assert set(real.add(new)) == set(naive.add(new))
            case "find", (str() as scope, list() as tokens):
                found = real.find(scope, tokens)
                assert (found.count if found else 0) == naive.served(scope, tokens[:-1])
                covered = real.covering(scope, tokens)
                assert (covered is not None) == (naive.served(scope, tokens) == len(tokens))
                if found:
                    assert naive.served(scope, tokens) >= common(found.entry.tokens, tokens[:-1])
                    real.touch(found.entry)
                    naive.touch(found.entry)
            case "shrink", int() as size:
                gone = real.shrink(size)
                assert gone == naive.entries[: len(gone)]
                del naive.entries[: len(gone)]
                assert real.bytes_held <= size
            case "drop", int() as place if naive.entries:
                real.drop(naive.entries.pop(place % len(naive.entries)))
        assert list(real) == naive.entries
        assert real.bytes_held == sum(one.size for one in naive.entries) <= BUDGET


@given(st.lists(st.integers(0, 2)), st.lists(st.integers(0, 2)))
def test_the_shared_length_is_found_by_halves(one: list[int], other: list[int]) -> None:
    assert shared_length(pack(one), pack(other)) == 4 * common(one, other)


@given(st.lists(st.integers(0, 2**32 - 1)))
def test_packing_loses_nothing(tokens: list[int]) -> None:
    assert unpack(pack(tokens)) == tokens


@given(st.lists(sequences, unique_by=tuple))
def test_a_trie_emptied_is_a_trie_anew(many: list[list[int]]) -> None:
    trie: TokenTrie[list[int]] = TokenTrie()
    for tokens in many:
        trie.put(pack(tokens), tokens, marked=True)
    for tokens in many:
        assert tokens in trie.prefixes(pack(tokens))
        trie.remove(pack(tokens))
        assert tokens not in trie.prefixes(pack(tokens))
    assert not trie
    assert trie.longest(pack([0, 0])) is None


def test_one_that_can_be_trimmed_serves_what_begins_alike() -> None:
    held = index(entry([1, 2, 3, 4]))
    found = held.find("", [1, 2, 9])
    assert found is not None and found.count == 2


def test_one_that_cannot_serves_only_what_goes_on_from_its_end() -> None:
    held = index(entry([1, 2, 3, 4], trimmable=False))
    assert held.find("", [1, 2, 9]) is None
    assert held.find("", [1, 2, 3, 4]) is None
    found = held.find("", [1, 2, 3, 4, 5])
    assert found is not None and found.count == 4


def test_the_last_token_is_always_left_to_compute() -> None:
    held = index(entry([1, 2, 3]))
    found = held.find("", [1, 2, 3])
    assert found is not None and found.count == 2
    assert held.find("", [1]) is None
    assert held.find("", []) is None


def test_scopes_never_meet() -> None:
    held = index(entry([1, 2, 3], scope="a"))
    assert held.find("b", [1, 2, 3, 4]) is None
    assert held.covering("b", [1, 2]) is None


def test_a_longer_one_that_can_be_trimmed_takes_the_place_of_shorter_ones() -> None:
    short, fork, state = entry([1, 2]), entry([1, 9]), entry([1], trimmable=False)
    held = index(short, fork, state)
    assert set(held.add(entry([1, 2, 3]))) == {short, state}
    assert fork in held and len(held) == 2


def test_a_longer_one_that_cannot_leaves_them() -> None:
    held = index(entry([1, 2], trimmable=False))
    assert held.add(entry([1, 2, 3], trimmable=False)) == []


def test_the_least_recently_used_goes_first() -> None:
    first, second = entry([1, 1], size=5), entry([2, 2], size=5)
    held = index(first, second)
    held.touch(first)
    assert held.add(entry([3, 3], size=1)) == [second]


def test_a_few_tokens_in_common_are_no_use_that_counts() -> None:
    first, second = entry([1, 2, 3, 4, 5], size=5), entry([2, 2], size=5)
    held = index(first, second)
    few, most = held.find("", [1, 2, 9]), held.find("", [1, 2, 3, 9])
    assert few is not None and not held.used(few)
    assert list(held) == [first, second]
    assert most is not None and held.used(most)
    assert list(held) == [second, first]


def test_a_hundred_thousand_tokens_are_found_at_once() -> None:
    common_part = [n % 1000 for n in range(100_000)]
    held = index(*(entry([*common_part, branch]) for branch in range(8)))
    began = time.perf_counter()
    for _ in range(10):
        found = held.find("", [*common_part[:90_000], 7, 7])
    assert time.perf_counter() - began < 1  # about 0.03; token by token it takes a second
    assert found is not None and found.count == 90_000
