"""How long a model that keeps dying rests before it is loaded again. Times are in seconds, by any
clock that only moves forward.
"""

from dataclasses import dataclass

_LONG_LIFE = 60.0  # whoever lived so long did not die of its load, or of its first requests
_FIRST_REST = 1.0
_LONGEST_REST = 60.0
_MOST_DOUBLINGS = 16  # 2**count is no number to work with


@dataclass(frozen=True, slots=True)
class Deaths:
    """Deaths of one model in a row, with no success between them.

    until: it is not loaded again before. reason: of the last one.
    """

    count: int
    until: float
    reason: str

    def rest_left(self, now: float) -> float:
        return max(self.until - now, 0.0)


def after_death(before: Deaths | None, now: float, lived: float, reason: str) -> Deaths:
    """What a death adds. lived: how long it was loaded; 0 when it could not even be."""
    count = before.count + 1 if before and lived < _LONG_LIFE else 1
    return Deaths(count, now + rest(count), reason)


def rest(deaths: int) -> float:
    """After the first the next request gets a fresh engine at once; then each rest is twice as
    long as the one before.
    """
    if deaths <= 1:
        return 0.0
    return min(_FIRST_REST * 2.0 ** min(deaths - 2, _MOST_DOUBLINGS), _LONGEST_REST)
