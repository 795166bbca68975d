"""Draws with numpy: the token is the one that would be drawn if all that is too unlikely were left
out first.
"""

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from adapters.mlx.cpu_draws import CpuDraws
from domain.chat import Sampling

ROWS = st.lists(
    st.builds(
        Sampling,
        temperature=st.sampled_from([0.05, 0.3, 1.0, 2.0]),
        top_p=st.sampled_from([0.0, 0.3, 0.8, 0.95, 1.0]),
        top_k=st.sampled_from([0, 2, 3, 20, 500]),
        min_p=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    ),
    min_size=1,
    max_size=5,
)


def logits(seed: int, rows: int, size: int) -> npt.NDArray[np.float32]:
    """Some of them equal."""
    drawn = np.random.default_rng(seed).normal(0, 2, (rows, size))
    return (drawn * 4).round().astype(np.float32) / 4


def filtered(line: npt.NDArray[np.float32], sampling: Sampling) -> npt.NDArray[np.float32]:
    """By sorting."""
    line = line / np.float32(sampling.temperature)
    weights = np.exp(line - line.max())
    ranked = np.sort(weights)[::-1]
    sums = ranked.cumsum(dtype=np.float64)
    least = sampling.min_p
    if sampling.top_k:
        least = max(least, ranked[min(sampling.top_k, ranked.size) - 1])
    if sampling.top_p < 1:
        inside = sums - ranked < sampling.top_p * float(weights.sum(dtype=np.float64))
        least = max(least, ranked[max(int(inside.sum()), 1) - 1])
    out: npt.NDArray[np.float32] = np.where(weights >= min(least, 1.0), line, -np.inf)
    return out


@given(ROWS, st.integers(0, 2**32), st.integers(0, 1000), st.sampled_from([1, 7, 300]))
def test_what_is_unlikely_is_never_drawn(
    rows: list[Sampling], seed: int, count: int, size: int
) -> None:
    lines = logits(seed, len(rows), size)
    words = list(range(seed, seed + len(rows)))
    plain = [Sampling(temperature=1.0) for _ in rows]
    left = np.stack([filtered(*row) for row in zip(lines, rows, strict=True)])
    expected = CpuDraws(plain, words).draw(left, [count] * len(rows))
    assert CpuDraws(rows, words).draw(lines, [count] * len(rows)).tolist() == expected.tolist()


@given(ROWS, st.integers(0, 2**32), st.integers(0, 1000))
def test_what_was_prepared_is_what_is_drawn(rows: list[Sampling], seed: int, count: int) -> None:
    lines = logits(seed, len(rows), 100)
    words = list(range(seed, seed + len(rows)))
    counts = [count + n for n in range(len(rows))]
    prepared = CpuDraws(rows, words)
    prepared.prepare(counts, 100)
    drawn = prepared.draw(lines, counts).tolist()
    assert drawn == CpuDraws(rows, words).draw(lines, counts).tolist()
    alone = [
        CpuDraws([row], [word]).draw(line[None], [count]).item()
        for line, row, word, count in zip(lines, rows, words, counts, strict=True)
    ]
    assert drawn == alone
    again = [count + 1 for count in counts]  # nobody prepared for these
    assert prepared.draw(lines, again).tolist() == CpuDraws(rows, words).draw(lines, again).tolist()


def test_frequencies_are_those_of_the_weights() -> None:
    line = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], dtype=np.float32))
    draws = CpuDraws([Sampling(temperature=1.0, top_p=0.9)], [7])
    said = [draws.draw(line, [count]).item() for count in range(4000)]
    shares = [said.count(token) / len(said) for token in range(4)]
    assert np.allclose(shares, [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0], atol=0.03)


def test_a_broken_model_breaks_nothing() -> None:
    draws = CpuDraws([Sampling(top_p=0.5)] * 3, [1, 2, 3])
    lines = np.array([[np.nan, 1, 2], [np.inf, 0, 0], [-np.inf] * 3], dtype=np.float32)
    assert all(0 <= token < lines.shape[1] for token in draws.draw(lines, [0, 0, 0]))
