"""Text that is held back because it may still become a marker or a stop string."""

from collections.abc import Iterable
from dataclasses import dataclass


def overlap(text: str, marks: Iterable[str]) -> int:
    """The length of the longest end of `text` that is a proper beginning of one of `marks`."""
    return max(
        (
            size
            for mark in marks
            for size in range(min(len(mark) - 1, len(text)), 0, -1)
            if text.endswith(mark[:size])
        ),
        default=0,
    )


@dataclass(frozen=True, slots=True)
class Span:
    """Text, and where it stands in all the raw text."""

    text: str
    start: int

    def cut(self, at: int) -> tuple["Span", "Span"]:
        return Span(self.text[:at], self.start), Span(self.text[at:], self.start + at)


class Channel:
    """One readable stream (answer or thoughts): finds stop strings, holds back what may be one."""

    def __init__(self, stops: tuple[str, ...], holds_space: bool) -> None:
        self._stops = stops
        self._holds_space = holds_space
        self._held: list[Span] = []
        self.stopped = False

    def feed(self, spans: Iterable[Span]) -> list[Span]:
        """Take more text in; return what may be shown now."""
        self._held.extend(spans)
        text = "".join(span.text for span in self._held)
        hits = [(at + len(s), at) for s in self._stops if (at := text.find(s)) >= 0]
        if hits:
            self.stopped = True
            shown = self._release(min(hits)[1])
            self._held.clear()
            return shown
        return self._release(self._safe_length(text))

    @property
    def holds(self) -> bool:
        return bool(self._held)

    def trim(self) -> list[Span]:
        """A marker follows: take away the white space held at the end, and return it."""
        text = "".join(span.text for span in self._held)
        kept = self._release(len(text.rstrip()))
        space, self._held = self._held, kept
        return space

    def flush(self) -> list[Span]:
        """Nothing follows: return all that was held."""
        held, self._held = self._held, []
        return held

    def _safe_length(self, text: str) -> int:
        safe = len(text) - overlap(text, self._stops)
        if self._holds_space:
            kept = text.rstrip()
            safe = min(safe, len(kept) - overlap(kept, self._stops))
        return safe

    def _release(self, length: int) -> list[Span]:
        """Take the first `length` characters out of what is held."""
        shown: list[Span] = []
        rest: list[Span] = []
        for span in self._held:
            head, tail = span.cut(max(min(length, len(span.text)), 0))
            length -= len(head.text)
            if head.text:
                shown.append(head)
                if tail.text:
                    rest.append(tail)
            else:
                rest.append(span)
        self._held = rest
        return shown
