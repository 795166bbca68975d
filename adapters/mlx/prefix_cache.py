"""States of the model after prompts, kept for prompts that begin alike. Worker thread only."""

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from adapters.mlx.prefix_store import PrefixStore
from adapters.mlx.snapshot import Snapshot, Unkeepable, freeze, settle, thaw
from domain.prefixes import Entry, Match, Prefixes
from domain.token_trie import pack

# A file is read whole, however little of it serves; below this share of it, computing is quicker.
_WORTH_READING = 1 / 8

_DONE = object()

Kept = Entry[Snapshot]


@dataclass(frozen=True, slots=True)
class PrefixStats:
    """cached_tokens: of all prompts together, those that did not have to be computed."""

    queries: int = 0
    hits: int = 0
    cached_tokens: int = 0
    read_from_disk: int = 0
    entries: int = 0
    bytes_held: int = 0


class PrefixCache:
    """Within a budget of bytes in memory; behind it, if there is a store, the disk."""

    def __init__(self, budget_bytes: int, store: PrefixStore | None = None) -> None:
        self._kept: Prefixes[Snapshot] = Prefixes(budget_bytes)
        self._store = store
        self._unsaved: dict[Kept, None] = {}  # oldest first; all of them are in memory still
        self._writing: tuple[Kept, Generator[None, None, None]] | None = None
        self._queries = self._hits = self._cached_tokens = self._read = 0

    @property
    def bytes_held(self) -> int:
        return self._kept.bytes_held

    @property
    def stats(self) -> PrefixStats:
        return PrefixStats(
            self._queries,
            self._hits,
            self._cached_tokens,
            self._read,
            len(self._kept),
            self.bytes_held,
        )

    @property
    def unsaved(self) -> bool:
        """Something is to be written to disk."""
        return bool(self._writing or self._unsaved)

    def find(
        self, scope: str, tokens: Sequence[int], *, on_disk: bool = True
    ) -> tuple[int, list[Any]] | None:
        """How many of the prompt's tokens are done, and caches that hold them: the caller's own.

        At least the last token is left to compute. on_disk: look there, too.
        """
        self._queries += 1
        found = self._kept.find(scope, tokens)
        if on_disk:
            found = self._read_longer(scope, tokens, found) or found
        if found is None:
            return None
        self._kept.used(found)
        self._hits += 1
        self._cached_tokens += found.count
        return found.count, thaw(found.entry.value, found.count)

    def keep(
        self, scope: str, tokens: Sequence[int], caches: Sequence[Any], *, on_disk: bool = True
    ) -> bool:
        """Remember a state that holds just these tokens. False if it can't be kept.

        The caches are the caller's still; what is written into them doesn't show. on_disk: write
        it there, too, if there is a store.
        """
        covering = self._kept.covering(scope, tokens) if tokens else None
        if covering is not None:
            self._kept.touch(covering)
            return True
        try:
            snapshot = freeze(caches, len(tokens))
        except Unkeepable:
            return False
        entry = _entry(scope, tokens, snapshot)
        if not tokens or entry.size > self._kept.budget:
            return False
        self._add(entry)
        settle(snapshot)
        if self._store is not None and on_disk:
            self._unsaved[entry] = None
        return True

    def flush(self, max_seconds: float) -> bool:
        """Write to disk what isn't there, for so long, but at least a piece. True once all is.

        A state that is long in writing is gone on with the next time; what is forgotten in
        memory before its turn is not written.
        """
        deadline = time.monotonic() + max_seconds
        while self._writing or self._unsaved:
            self._write_on()
            if time.monotonic() >= deadline:
                break
        return not self.unsaved

    def shrink(self, to_bytes: int) -> None:
        """Forget so much in memory that no more is held; what is on disk stays."""
        self._forget(self._kept.shrink(to_bytes))

    def limit(self, to_bytes: int) -> None:
        """Hold no more than this from now on."""
        self._kept.budget = max(to_bytes, 0)
        self.shrink(self._kept.budget)

    def clear(self) -> None:
        """Forget everything, on disk, too."""
        self.shrink(0)
        if self._store is not None:
            self._store.clear()

    def close(self) -> None:
        """What has not been written by now isn't."""
        self.shrink(0)
        if self._store is not None:
            self._store.close()

    def _read_longer(
        self, scope: str, tokens: Sequence[int], found: Match[Snapshot] | None
    ) -> Match[Snapshot] | None:
        """What the disk has, where it serves so much more that reading it pays."""
        while self._store is not None:
            stored = self._store.find(scope, tokens)
            gain = stored.count - (found.count if found else 0) if stored else 0
            if stored is None or gain <= stored.entry.length * _WORTH_READING:
                return None
            if stored.entry.size > self._kept.budget:
                return None
            self._forget(self._kept.shrink(self._kept.budget - stored.entry.size))
            snapshot = self._store.read(stored.entry)
            if snapshot is not None:
                self._read += 1
                entry = _entry(scope, stored.entry.tokens, snapshot)
                self._add(entry)
                return Match(entry, stored.count)
        return None

    def _add(self, entry: Kept) -> None:
        self._forget(self._kept.add(entry))

    def _forget(self, entries: Sequence[Kept]) -> None:
        """They take no memory any longer, so neither may what is to be written."""
        for entry in entries:
            self._unsaved.pop(entry, None)
            if self._writing and self._writing[0] is entry:
                self._writing[1].close()
                self._writing = None

    def _write_on(self) -> None:
        """A piece of a file: the newest state first, as it is likelier to be asked for."""
        if self._store is None:
            self._unsaved.clear()
            return
        if self._writing is None:
            entry, _ = self._unsaved.popitem()
            steps = self._store.save(entry.scope, entry.tokens, entry.value)
            self._writing = (entry, steps)
        if next(self._writing[1], _DONE) is _DONE:
            self._writing = None


def _entry(scope: str, tokens: Sequence[int], snapshot: Snapshot) -> Kept:
    packed = pack(tokens)
    return Entry(scope, packed, snapshot.trimmable, snapshot.nbytes + len(packed), snapshot)
