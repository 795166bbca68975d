"""How much was done in the last minute, and when more may be. No clock: callers tell the time."""

from collections import deque

WINDOW = 60.0  # seconds


class SlidingWindow:
    """No minute, wherever it begins, holds more than `limit` when `wait` is obeyed.

    What was done is forgotten a minute after it was recorded. More than the limit may be recorded
    (what something costs can be known when it is over); then it takes longer until there is room.
    Times are in seconds and never go back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._done: deque[tuple[float, int]] = deque()
        self._used = 0

    def record(self, now: float, amount: int) -> None:
        self._forget(now)
        if amount > 0:
            self._done.append((now, amount))
            self._used += amount

    def remaining(self, now: float) -> int:
        self._forget(now)
        return max(self.limit - self._used, 0)

    def wait(self, now: float) -> float:
        """Seconds until there is room for 1; 0 if there is now."""
        self._forget(now)
        excess = self._used - self.limit + 1
        for when, amount in self._done:
            if excess <= 0:
                break
            excess -= amount
            if excess <= 0:
                return when + WINDOW - now
        return 0.0

    def reset(self, now: float) -> float:
        """Seconds until all of the limit is free again."""
        self._forget(now)
        return self._done[-1][0] + WINDOW - now if self._done else 0.0

    def _forget(self, now: float) -> None:
        while self._done and self._done[0][0] + WINDOW <= now:
            self._used -= self._done.popleft()[1]
