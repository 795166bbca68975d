"""How long things take here, measured as they happen."""

from domain.batching import LEAST_SLICE, next_slice_size

_WEIGHT = 0.3  # of each new measurement


class Averages(dict[int, float]):
    """Moving averages of seconds, by what they depend on."""

    def add(self, key: int, seconds: float) -> None:
        before = self.get(key, seconds)
        self[key] = before + _WEIGHT * (seconds - before)


class StepTimes:
    """How long decode steps take, by the number of their rows."""

    def __init__(self) -> None:
        self._by_width = Averages()

    def add(self, width: int, seconds: float) -> None:
        self._by_width.add(width, seconds)

    def seconds(self, width: int) -> float:
        """Of a step of so many rows: no longer than any wider one, since the first of a width may
        take long (kernels are compiled then). 0 when none was measured.
        """
        wider = [seconds for rows, seconds in self._by_width.items() if rows >= width]
        if wider or not self._by_width:
            return min(wider, default=0.0)
        return self._by_width[max(self._by_width)]

    def ahead(self, now: int, then: int) -> float:
        """Of a step of `then` rows, when there are `now`. A row costs at most what those do that
        there are, whatever steps of that width took when they had longer rows.
        """
        return min(self.seconds(then), self.seconds(now) * then / now)


class SliceSize:
    """How many prompt tokens are computed between two looks at what else there is to do."""

    def __init__(self, first: int, most: int, least: int = LEAST_SLICE) -> None:
        self._most, self._least = most, min(least, most)
        self.tokens = self._bounded(first)

    def measured(self, tokens: int, seconds: float, budget: float) -> None:
        """So many took so long; they should have taken `budget` seconds at most."""
        self.tokens = self._bounded(
            next_slice_size(self.tokens, tokens, seconds, budget, self._least)
        )

    def _bounded(self, tokens: int) -> int:
        return max(self._least, min(tokens, self._most))
