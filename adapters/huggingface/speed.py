"""How fast a download is, over the last seconds."""

from collections import deque

from application.ports import Clock

_WINDOW = 5.0  # seconds


class Speed:
    """Fed with the bytes that are here, not with those that were transferred: a download that
    goes on where it stopped starts at zero.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._samples: deque[tuple[float, int]] = deque()

    def feed(self, arrived: int) -> float:
        """Bytes a second."""
        now = self._clock()
        self._samples.append((now, arrived))
        while now - self._samples[0][0] > _WINDOW:
            self._samples.popleft()
        then, had = self._samples[0]
        return max(arrived - had, 0) / (now - then) if now > then else 0.0
