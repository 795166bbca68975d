"""How long things take here, measured as they happen."""

from collections import defaultdict, deque
from functools import partial

from domain.batching import next_slice_size, slice_cost

_REMEMBERED = 3  # slices of each order of size
_WEIGHT = 0.3  # of each new measurement


class StepTimes:
    """How long decode steps take, by the number of their rows: moving averages."""

    def __init__(self) -> None:
        self._by_width: dict[int, float] = {}

    def add(self, width: int, seconds: float) -> None:
        before = self._by_width.get(width, seconds)
        self._by_width[width] = before + _WEIGHT * (seconds - before)

    def seconds(self, width: int) -> float:
        """Of a step of so many rows: no longer than any wider one, since the first of a width may
        take long (kernels are compiled then). 0 when none was measured.
        """
        wider = [seconds for rows, seconds in self._by_width.items() if rows >= width]
        if wider or not self._by_width:
            return min(wider, default=0.0)
        return self._by_width[max(self._by_width)]


class SliceSize:
    """How many prompt tokens are computed between two looks at what else there is to do."""

    def __init__(self, first: int, most: int) -> None:
        self._most = most
        self._last: defaultdict[int, deque[tuple[int, float]]]
        self._last = defaultdict(partial(deque, maxlen=_REMEMBERED))
        self.tokens = min(first, most)
        self.fixed = 0.0  # seconds of any slice, however short

    def took(self, tokens: int, seconds: float) -> None:
        """One slice, of one prompt or of several together."""
        self._last[tokens.bit_length()].append((tokens, seconds))

    def adapt(self, budget: float) -> None:
        """To what slices cost, and the seconds that they may take."""
        slices = [slice_ for alike in self._last.values() for slice_ in alike]
        self.fixed, each = slice_cost(slices)
        size = next_slice_size(self.tokens, (self.fixed, each), budget)
        if self.tokens < self._most and len({tokens for tokens, _ in slices}) == 1:
            size = 2 * self.tokens  # one other has to be tried, to tell what a slice itself costs
        self.tokens = min(size, self._most)
