"""Which remembered prefix serves a prompt best, and which one is forgotten for another.

A state of the model after some tokens serves every prompt that begins with them. One that can be
trimmed serves prompts that only begin alike, too: it is cut to what they share. Tokens themselves
are compared, not their hashes, and never across scopes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from domain.token_trie import TokenTrie, count_packed, pack, unpack

_COUNTS_AS_USE = 1 / 2  # of an entry

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class Entry(Generic[V]):
    """A state that is remembered. size: in bytes."""

    scope: str
    packed: bytes
    trimmable: bool
    size: int
    value: V

    @property
    def tokens(self) -> list[int]:
        return unpack(self.packed)

    @property
    def length(self) -> int:
        return count_packed(self.packed)


@dataclass(frozen=True, slots=True)
class Match(Generic[V]):
    """count: how many tokens of the prompt the entry serves."""

    entry: Entry[V]
    count: int


class Prefixes(Generic[V]):
    """Entries within a budget of bytes; the least recently used is forgotten first.

    Iterated from the least recently used to the most.
    """

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes_held = 0
        self._entries: dict[Entry[V], None] = {}  # in the order of their last use
        self._tries: dict[str, TokenTrie[Entry[V]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry[V]]:
        return iter(tuple(self._entries))

    def __contains__(self, entry: Entry[V]) -> bool:
        return entry in self._entries

    def find(self, scope: str, tokens: Sequence[int]) -> Match[V] | None:
        """The longest prefix there is; at least the last token is left to compute."""
        trie = self._tries.get(scope)
        found = trie.longest(pack(tokens[:-1])) if trie else None
        if found is None:
            return None
        entry, shared = found
        return Match(entry, shared) if shared else None

    def covering(self, scope: str, tokens: Sequence[int]) -> Entry[V] | None:
        """An entry that serves all that one of `tokens` could, so that it need not be added."""
        trie = self._tries.get(scope)
        found = trie.longest(pack(tokens)) if trie else None
        return found[0] if found and found[1] == len(tokens) else None

    def add(self, entry: Entry[V]) -> list[Entry[V]]:
        """What had to go for it, or makes no sense beside it. It must fit into the budget."""
        trie = self._tries.get(entry.scope)
        beneath = trie.prefixes(entry.packed) if trie else []
        gone = [old for old in beneath if entry.trimmable or old.packed == entry.packed]
        for old in gone:
            self.drop(old)
        gone += self.shrink(self.budget - entry.size)
        trie = self._tries.setdefault(entry.scope, TokenTrie())
        trie.put(entry.packed, entry, marked=entry.trimmable)
        self._entries[entry] = None
        self.bytes_held += entry.size
        return gone

    def used(self, match: Match[V]) -> bool:
        """Whether that counts as a use. A few tokens don't: all chats of a model begin alike,
        and whichever entry serves that would never be forgotten.
        """
        counts = match.count >= match.entry.length * _COUNTS_AS_USE
        if counts and match.entry in self._entries:
            self.touch(match.entry)
        return counts

    def touch(self, entry: Entry[V]) -> None:
        del self._entries[entry]
        self._entries[entry] = None

    def drop(self, entry: Entry[V]) -> None:
        del self._entries[entry]
        self.bytes_held -= entry.size
        trie = self._tries[entry.scope]
        trie.remove(entry.packed)
        if not trie:
            del self._tries[entry.scope]

    def shrink(self, to_bytes: int) -> list[Entry[V]]:
        """What is forgotten so that no more than so many bytes are held."""
        gone: list[Entry[V]] = []
        while self._entries and self.bytes_held > to_bytes:
            gone.append(next(iter(self._entries)))
            self.drop(gone[-1])
        return gone
