"""When guesses pay, and when they are better left alone. Times are in seconds."""

from dataclasses import dataclass, replace
from typing import Self

from domain.models import ModelCard

_KEPT = 15 / 16  # of what was measured before, with each step
_SAMPLE = 8  # ordinary steps, to know what a token takes without
_TRIAL = 8  # drafted steps, before they are judged
_HOPELESS = 1.5  # of the time without, after a few
_FEW = 3
_REFRESH = 256  # drafted steps, until the ordinary ones are measured again
_STALE = 16  # drafted steps, after which these are before guesses are given up
_HOPE = 0.5  # of the time without: what is expected of guesses that were not tried yet
_FIRST_REST, _LONGEST_REST = 64, 4096  # ordinary steps, after a trial that did not pay
_LONGER = 4  # times, after each one more


@dataclass(frozen=True, slots=True)
class Draft:
    """A small model that guesses what a large one will say. tokens: guesses of one step."""

    card: ModelCard
    tokens: int


@dataclass(frozen=True, slots=True)
class Rate:
    """What a token takes, of late."""

    seconds: float = 0.0
    tokens: float = 0.0
    steps: int = 0

    def add(self, seconds: float, tokens: float) -> "Rate":
        return Rate(self.seconds * _KEPT + seconds, self.tokens * _KEPT + tokens, self.steps + 1)

    @property
    def per_token(self) -> float:
        return self.seconds / self.tokens if self.tokens else 0.0


@dataclass(frozen=True, slots=True)
class Payoff:
    """What was seen of steps with and without guesses, of so many rows. Tokens are those of a row.

    After a trial that did not pay, guesses rest; longer each time, so that a draft that is
    of no use costs next to nothing, and one that comes to be of use is found out.
    """

    plain: Rate = Rate()
    drafted: Rate = Rate()
    rest: int = 0  # ordinary steps to come before the next drafted one
    next_rest: int = _FIRST_REST
    age: int = 0  # drafted steps since the ordinary ones were measured

    def after_plain(self, seconds: float) -> Self:
        """A step that gave a token."""
        measured = replace(self, plain=self.plain.add(seconds, 1), rest=max(self.rest - 1, 0))
        lost = self.rest == 1 and measured._tried and not measured._quicker
        return measured._resting() if lost else measured

    def after_drafted(self, seconds: float, tokens: float) -> Self:
        """A step that gave so many, guesses that were right among them."""
        measured = replace(self, drafted=self.drafted.add(seconds, tokens), age=self.age + 1)
        if not measured._tried:
            return self._resting() if measured._hopeless else measured
        if measured.age >= (_REFRESH if measured._quicker else _STALE):
            return replace(measured, plain=Rate(), rest=_SAMPLE, age=0)
        return replace(measured, next_rest=_FIRST_REST) if measured._quicker else self._resting()

    def anew(self) -> Self:
        """For guesses that nothing is known of yet."""
        return replace(self, drafted=Rate(), rest=0, next_rest=_FIRST_REST, age=0)

    def pays(self, delay: float, expected: float) -> bool:
        """Whether the next step is better drafted.

        delay: until what guesses has read what there is so far. expected: tokens still to come.
        """
        if self.rest or self.plain.steps < _SAMPLE:
            return False
        plain = self.plain.per_token
        drafted = self.drafted.per_token if self._tried else plain * _HOPE
        return delay + drafted * expected < plain * expected

    @property
    def _tried(self) -> bool:
        return self.drafted.steps >= _TRIAL

    @property
    def _hopeless(self) -> bool:
        slow = self.drafted.per_token > _HOPELESS * self.plain.per_token
        return slow and self.drafted.steps >= _FEW

    @property
    def _quicker(self) -> bool:
        return self.drafted.per_token < self.plain.per_token

    def _resting(self) -> Self:
        longer = min(_LONGER * self.next_rest, _LONGEST_REST)
        return replace(self, drafted=Rate(), rest=self.next_rest, next_rest=longer, age=0)
