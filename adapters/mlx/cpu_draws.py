"""Draws for the rows of a batch on a CPU, where numpy computes powers, sorts and random numbers
several times quicker than MLX does. Worker thread only.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from adapters.mlx.blas import Numbers
from domain.chat import Sampling

_TINY = np.finfo(np.float32).tiny


class CpuDraws:
    """Temperature comes first, then min_p, top_k and top_p. words: 64 random bits of each row."""

    def __init__(self, samplings: Sequence[Sampling], words: Sequence[int]) -> None:
        self._samplings, self._words = samplings, words
        self._temperature = np.array([[s.temperature] for s in samplings], dtype=np.float32)
        self._ready: dict[tuple[int, int], Numbers] = {}

    def prepare(self, counts: Sequence[int], size: int) -> None:
        """What the next draws need that is known before the logits are."""
        asked = zip(self._words, counts, strict=True)
        self._ready = {place: _times(*place, size) for place in asked}

    def draw(self, lines: Numbers, counts: Sequence[int]) -> npt.NDArray[np.intp]:
        """lines: logits, [rows, vocabulary]. counts: how often each row has drawn before. One
        token for each row, which depends on its own line, words and count alone.
        """
        lines = lines / self._temperature
        with np.errstate(invalid="ignore"):  # of a model that is broken
            weights = np.exp(lines - lines.max(axis=-1, keepdims=True))
        places = list(zip(self._words, counts, strict=True))
        if self._ready.keys() != set(places):
            self.prepare(counts, lines.shape[-1])
        rows = zip(weights, self._samplings, places, strict=True)
        return np.array([_winner(line, self._ready[place], s) for line, s, place in rows])


def _times(words: int, count: int, size: int) -> Numbers:
    chance = np.random.Generator(np.random.Philox(key=words, counter=[0, count, 0, 0]))
    return np.maximum(chance.standard_exponential(size, dtype=np.float32), _TINY)


def _winner(weights: Numbers, times: Numbers, sampling: Sampling) -> int:
    """Each token comes by chance and at a rate of its weight, and the first that is likely enough
    is taken. Whether it is depends on those that weigh more, so nobody has to sort them all. The
    likeliest, which weighs 1, always is, and ties are together.
    """
    speeds = weights / times
    enough = sampling.top_p * float(weights.sum(dtype=np.float64))
    most = sampling.top_k or weights.size
    while True:
        first = int(speeds.argmax())
        heavier = weights > weights[first]
        count = np.count_nonzero(heavier)
        if not count or (
            weights[first] >= sampling.min_p
            and count < most
            and (sampling.top_p == 1.0 or weights[heavier].sum(dtype=np.float64) < enough)
        ):
            return first
        speeds[~heavier] = -1.0
