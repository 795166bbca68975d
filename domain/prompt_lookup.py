"""Guesses from the text itself: where its last tokens stood before, and what followed there.

Answers repeat much of what they were asked about: code that is edited, documents that are quoted,
records of one form. Source: https://github.com/apoorvumang/prompt-lookup-decoding
"""

from collections.abc import Iterable

_NGRAM = 3  # tokens that have to be the same; two are in nearly every text again
_FEWEST = 2  # guesses; the first of a text, and after they were wrong


class PromptLookup:
    """Of one text, as it grows."""

    def __init__(self, most: int) -> None:
        """most: guesses at a time."""
        self._most = most
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # where the last of each n-gram ended
        self._place: int | None = None  # of the token that followed before, where there was one
        self._trust = min(_FEWEST, most)

    def __len__(self) -> int:
        """Tokens that were read."""
        return len(self._tokens)

    def read(self, tokens: Iterable[int]) -> None:
        """How the text goes on."""
        for token in tokens:
            follows = self._place is not None and self._tokens[self._place] == token
            self._tokens.append(token)
            if len(self._tokens) < _NGRAM:
                continue
            ngram = tuple(self._tokens[-_NGRAM:])
            # As long as the text keeps to one place, that place knows better than the latest one.
            self._place = self._place + 1 if self._place and follows else self._after.get(ngram)
            self._after[ngram] = len(self._tokens)

    @property
    def count(self) -> int:
        """How many guesses are worth a try; 0 where the text says something new."""
        return 0 if self._place is None else self._trust

    def guess(self, count: int) -> list[int]:
        """The next tokens. There is something to guess, so `count` of the lookup is not 0."""
        assert self._place is not None  # noqa: S101 - as the docstring asks
        text = self._tokens[self._place : self._place + count]
        period = len(self._tokens) - self._place
        return [text[n % period] for n in range(count)]

    def judge(self, guessed: int, right: int) -> None:
        """So many of the guesses were right: twice as many next time, if all were."""
        trusted = 2 * guessed if right == guessed else right
        self._trust = min(max(trusted, _FEWEST), self._most)
