"""Which token a stretch of text came from."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

from domain.held_text import Span
from domain.outputs import TokenScore


@dataclass(slots=True)
class _Scored:
    """A token's place in the raw text, and how much of it was shown."""

    first: int
    last: int
    score: TokenScore
    shown: str = ""

    def as_shown(self) -> TokenScore:
        """Cut to what was shown, so that joined tokens are the text also where a stop cut one."""
        if len(self.shown) == self.last - self.first:
            return self.score
        return replace(self.score, token=self.shown, raw=self.shown.encode())


class Ledger:
    """Which score belongs to which characters of the raw text."""

    def __init__(self) -> None:
        self._scores: deque[_Scored] = deque()
        self._end = 0

    def note(self, text: str, score: TokenScore | None) -> None:
        start, self._end = self._end, self._end + len(text)
        if score is not None:
            self._scores.append(_Scored(start, self._end, score))

    def due(self, span: Span) -> Iterator[TokenScore]:
        """The scores of the tokens that end with `span`, each once; spans come in order.

        A token without characters (bytes of an unfinished one) comes with the character that it
        began; one that is hidden as a whole never comes.
        """
        end = span.start + len(span.text)
        while self._scores and self._scores[0].first < end:
            token = self._scores[0]
            token.shown += span.text[
                max(token.first - span.start, 0) : max(token.last - span.start, 0)
            ]
            if token.last > end:
                return
            self._scores.popleft()
            if token.shown or span.start <= token.first == token.last:
                yield token.as_shown()

    def rest(self) -> Iterator[TokenScore]:
        """Nothing more is shown: the token that was cut, if there is one."""
        return (token.as_shown() for token in self._scores if token.shown)
