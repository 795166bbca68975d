"""What is known of one answer while it comes: its times, and its tokens so far."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from domain.events import FinishReason
from domain.models import ModelId
from domain.outputs import EngineOutput, Piece, PromptProgress
from domain.timings import GAP_BOUNDS, Timings


@dataclass(slots=True, eq=False)
class AnswerRecord:
    """Times are the clock's, in seconds; None is for what has not happened.

    gaps: times between tokens, counted by GAP_BOUNDS. An answer that has ended with neither
    `reason` nor `error` was cancelled: nobody wanted to read on.
    """

    model: ModelId
    clock: Callable[[], float]
    begun: float
    leased: float | None = None  # the model is loaded, and the request at its engine
    admitted: float | None = None  # it has a place in the batch
    first_token: float | None = None
    last_token: float | None = None
    ended: float | None = None
    prompt_tokens: int = 0
    processed_tokens: int = 0  # of the prompt, those from the cache included
    cached_tokens: int = 0
    generated_tokens: int = 0
    gaps: list[int] = field(default_factory=lambda: [0] * (len(GAP_BOUNDS) + 1))
    reason: FinishReason | None = None
    error: Exception | None = None  # what nobody foresaw included

    def note(self, output: EngineOutput) -> bool:
        """Whether that was the first token. Called for every token: it has to be cheap."""
        if isinstance(output, Piece):
            now = self.clock()
            self.generated_tokens += 1
            if self.last_token is None:
                self.first_token = self.last_token = now
                return True
            self.gaps[bisect_left(GAP_BOUNDS, now - self.last_token)] += 1
            self.last_token = now
        elif isinstance(output, PromptProgress):
            if self.admitted is None:
                self.admitted = self.clock()
            self.prompt_tokens, self.cached_tokens = output.total, output.cached
            self.processed_tokens = output.processed
        return False

    @property
    def duration(self) -> float:
        """Seconds so far."""
        return (self.clock() if self.ended is None else self.ended) - self.begun

    @property
    def timings(self) -> Timings:
        """As far as it has come."""
        now = self.clock() if self.ended is None else self.ended
        admitted = now if self.admitted is None else self.admitted
        first = now if self.first_token is None else self.first_token
        last = first if self.last_token is None else self.last_token
        return Timings(admitted - self.begun, first - admitted, last - first)


class Observer(Protocol):
    """Who watches answers come and go. Called on the event loop, in the task that reads the
    answer; it neither waits nor raises.
    """

    def begun(self, record: AnswerRecord) -> None: ...

    def first_token(self, record: AnswerRecord) -> None: ...

    def ended(self, record: AnswerRecord) -> None:
        """It was answered, failed or was cancelled. Always called, and once."""


class Observers:
    """Many as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers: Sequence[Observer] = observers

    def begun(self, record: AnswerRecord) -> None:
        for observer in self._observers:
            observer.begun(record)

    def first_token(self, record: AnswerRecord) -> None:
        for observer in self._observers:
            observer.first_token(record)

    def ended(self, record: AnswerRecord) -> None:
        for observer in self._observers:
            observer.ended(record)


@contextmanager
def observed(
    model: ModelId, clock: Callable[[], float], observer: Observer
) -> Iterator[AnswerRecord]:
    """A record for as long as the block runs."""
    record = AnswerRecord(model, clock, clock())
    observer.begun(record)
    try:
        yield record
    except Exception as error:
        record.error = error
        raise
    finally:
        record.ended = clock()
        observer.ended(record)
