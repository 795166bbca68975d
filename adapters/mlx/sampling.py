"""Sampling for a whole batch at once, whatever each row asks for. Worker thread only."""

import copy
import secrets
from collections.abc import Callable, Sequence

import mlx.core as mx
import numpy as np

from adapters.mlx import gpu
from adapters.mlx.blas import numbers
from adapters.mlx.cpu_draws import CpuDraws
from domain.chat import Sampling

_COLDEST = 1e-4  # below it, float32 overflows and the choice is the greedy one anyway


class SamplingRow:
    """How one request is sampled, and how far it has come.

    prompt, answer: its tokens so far. vocabulary: the number of logits.
    """

    def __init__(
        self, sampling: Sampling, prompt: Sequence[int], answer: Sequence[int], vocabulary: int
    ) -> None:
        self.sampling = sampling
        self.words = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self.key = _make_key(self.words)
        s = sampling
        self.greedy = s.temperature < _COLDEST or s.top_k == 1
        self.filtered = s.top_p != 1.0 or s.top_k != 0 or s.min_p != 0.0
        self.penalised = s.repetition_penalty != 1.0 or bool(
            s.presence_penalty or s.frequency_penalty
        )
        self.bias = _make_bias(sampling, vocabulary) if sampling.logit_bias else None
        self._vocabulary = vocabulary
        self.rewind(prompt, answer)

    def ahead(self, tokens: int) -> "SamplingRow":
        """One that samples as this one will, so many tokens from now. Not for penalised rows,
        whose choices depend on the tokens between.
        """
        other = copy.copy(self)
        other.draws = self.draws + tokens
        return other

    def rewind(self, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Go on after these tokens, and forget any draw beyond them."""
        self.draws = len(answer)
        # How often each token came up in the answer, and whether it did in the prompt.
        self.counts = self.prompted = mx.zeros((0,))
        if self.penalised:
            self.counts = _count(answer, self._vocabulary)
            self.prompted = _count(prompt, self._vocabulary) > 0


def _make_key(words: int) -> mx.array:
    """Of the request's own; the global random state is never touched.

    Mixed once, so that neighbouring seeds have nothing in common.
    """
    return mx.random.split(mx.random.key(words))[0]


def _make_bias(sampling: Sampling, vocabulary: int) -> mx.array:
    ids, values = list(sampling.logit_bias.keys()), list(sampling.logit_bias.values())
    return mx.zeros((vocabulary,)).at[mx.array(ids)].add(mx.array(values))


def _count(tokens: Sequence[int], vocabulary: int) -> mx.array:
    counts = mx.zeros((vocabulary,))
    return counts.at[mx.array(list(tokens))].add(1.0) if tokens else counts


class _Lines:
    """Some rows of a batch: their lines of an array, and columns of what they ask for."""

    def __init__(self, all_rows: Sequence[SamplingRow], places: Sequence[int]) -> None:
        self.rows = [all_rows[place] for place in places]
        self._places = None if len(places) == len(all_rows) else mx.array(list(places))

    def of(self, array: mx.array) -> mx.array:
        return array if self._places is None else array[self._places]

    def put(self, array: mx.array, lines: mx.array) -> mx.array:
        if self._places is None:
            return lines
        array[self._places] = lines
        return array

    def column(self, value: Callable[[Sampling], float]) -> mx.array:
        return mx.array([value(row.sampling) for row in self.rows])[:, None]


def _lines(rows: Sequence[SamplingRow], wanted: Callable[[SamplingRow], bool]) -> _Lines | None:
    places = [place for place, row in enumerate(rows) if wanted(row)]
    return _Lines(rows, places) if places else None


class BatchSampler:
    """Biases, penalties and draws for the rows of a batch, each over the rows that ask for it.

    On a GPU nothing is computed yet when its methods return. Call `release` before making another
    one of the same rows.
    """

    def __init__(self, rows: Sequence[SamplingRow]) -> None:
        self._rows = rows
        self._penalties = _Penalties.of(rows)
        drawn = _lines(rows, lambda row: not row.greedy)
        self._draws = (_CpuDraws if _ON_CPU else _Draws)(drawn) if drawn else None
        self._biased = _lines(rows, lambda row: row.bias is not None)
        if self._biased:
            self._bias = mx.stack([row.bias for row in self._biased.rows if row.bias is not None])

    @property
    def waits(self) -> bool:
        """Whether `sample` waits for the logits."""
        return isinstance(self._draws, _CpuDraws)

    def prepare(self, logits: mx.array) -> None:
        """While these are computed, do what `sample` needs beside them."""
        if isinstance(self._draws, _CpuDraws):
            self._draws.prepare(logits)

    def process(self, logits: mx.array) -> mx.array:
        """logits: [rows, vocabulary]. Biases, then penalties: repetition, presence, frequency."""
        if self._biased:
            lines = self._biased.of(logits)
            logits = self._biased.put(logits, lines + self._bias.astype(lines.dtype))
        return self._penalties.punish(logits) if self._penalties else logits

    def sample(self, logits: mx.array) -> mx.array:
        """One token for each row: [rows]."""
        tokens = mx.argmax(_rounded(logits), axis=-1)
        if self._draws:
            tokens = self._draws.draw(logits, tokens)
        if self._penalties:
            self._penalties.note(tokens)
        for row in self._rows:
            row.draws += 1
        return tokens

    def release(self) -> None:
        if self._penalties:
            self._penalties.release()


def _rounded(logits: mx.array) -> mx.array:
    """What mlx-lm's `generate` takes the likeliest of: log-probabilities. In 16 bits they are
    coarser than the logits, so that the first of several tokens is taken, which is in one of
    hundreds of cases not the one with the largest logit.
    """
    if logits.dtype == mx.float32:
        return logits
    # A CPU computes powers of 16 bits twice, to the same sum.
    lines = logits.astype(mx.float32) if _ON_CPU else logits
    return logits - mx.logsumexp(lines, axis=-1, keepdims=True).astype(logits.dtype)


def try_out(row: SamplingRow, vocabulary: int) -> None:
    """Sample the row alone, without computing anything: what would break a batch breaks here."""
    sampler = BatchSampler([row])
    logits = sampler.process(mx.zeros((1, vocabulary)))
    if not sampler.waits:
        sampler.sample(logits)
    row.draws = 0


class _Penalties:
    """Counted on the device, so that no step waits for the tokens of the one before."""

    @classmethod
    def of(cls, rows: Sequence[SamplingRow]) -> "_Penalties | None":
        lines = _lines(rows, lambda row: row.penalised)
        return cls(lines) if lines else None

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._counts = mx.stack([row.counts for row in lines.rows])
        self._prompted = mx.stack([row.prompted for row in lines.rows])
        self._repetition = lines.column(lambda s: s.repetition_penalty)
        self._presence = lines.column(lambda s: s.presence_penalty)
        self._frequency = lines.column(lambda s: s.frequency_penalty)

    def punish(self, logits: mx.array) -> mx.array:
        """Repetition is sign-aware and multiplicative (https://arxiv.org/abs/1909.05858) and
        looks at prompt and answer; presence and frequency, as OpenAI's, at the answer only.
        """
        lines = self._lines.of(logits).astype(mx.float32)
        weakened = mx.where(lines < 0, lines * self._repetition, lines / self._repetition)
        lines = mx.where(self._prompted | (self._counts > 0), weakened, lines)
        lines = lines - self._presence * (self._counts > 0) - self._frequency * self._counts
        return self._lines.put(logits, lines.astype(logits.dtype))

    def note(self, tokens: mx.array) -> None:
        own = self._lines.of(tokens)
        self._counts = self._counts.at[mx.arange(own.shape[0]), own].add(1.0)

    def release(self) -> None:
        for row, counts in zip(self._lines.rows, self._counts, strict=True):
            row.counts = counts


class _Draws:
    """Temperature comes first, then min_p, top_k and top_p, as in vLLM.

    A row's nth draw depends on its seed and on n alone: it draws the same in any company, and
    after it had to give its place up for a while.
    """

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        self._keys = mx.stack([row.key for row in lines.rows])
        self._temperature = lines.column(lambda s: s.temperature)
        self._filtered = _lines(lines.rows, lambda row: row.filtered)
        if self._filtered:
            vast = 2**31 - 1
            self._top_p = self._filtered.column(lambda s: s.top_p)
            self._top_k = self._filtered.column(lambda s: s.top_k or vast)
            self._min_p = self._filtered.column(lambda s: s.min_p)
            self._has_top_p = any(row.sampling.top_p != 1.0 for row in self._filtered.rows)
            self._has_top_k = any(row.sampling.top_k for row in self._filtered.rows)

    def draw(self, logits: mx.array, tokens: mx.array) -> mx.array:
        lines = self._lines.of(logits).astype(mx.float32) / self._temperature
        if self._filtered:
            lines = self._filtered.put(lines, self._filter(self._filtered.of(lines)))
        return self._lines.put(tokens, _categorical(lines, self._nth_keys()))

    def _nth_keys(self) -> mx.array:
        draws = mx.array([[row.draws, 0] for row in self._lines.rows], dtype=mx.uint32)
        return self._keys + draws

    def _filter(self, lines: mx.array) -> mx.array:
        """Masks what is too unlikely. The likeliest token always stays, and ties stay together."""
        probs = mx.softmax(lines, axis=-1)
        most = mx.max(probs, axis=-1, keepdims=True)
        least = self._min_p * most
        if self._has_top_p:
            least = mx.maximum(least, _nucleus(probs, self._top_p))
        if self._has_top_k:
            least = mx.maximum(least, _top(probs, self._top_k))
        return mx.where(probs >= mx.minimum(least, most), lines, -mx.inf)


class _CpuDraws:
    """The same for a CPU, where waiting for the logits costs nothing: no other step could be
    computed meanwhile.
    """

    def __init__(self, lines: _Lines) -> None:
        self._lines = lines
        rows = lines.rows
        self._draws = CpuDraws([row.sampling for row in rows], [row.words for row in rows])
        self._known = self._wide = mx.array(0)

    def prepare(self, logits: mx.array) -> None:
        self._known, self._wide = logits, self._lines.of(logits).astype(mx.float32)
        mx.async_eval(self._wide)
        self._draws.prepare([row.draws for row in self._lines.rows], logits.shape[-1])

    def draw(self, logits: mx.array, tokens: mx.array) -> mx.array:
        [lines] = numbers(self._wide if logits is self._known else self._lines.of(logits))
        drawn = self._draws.draw(lines, [row.draws for row in self._lines.rows])
        return self._lines.put(tokens, mx.array(drawn.astype(np.uint32)))


_ON_CPU = gpu.on_cpu()
_ONE_BITS = 29  # the highest bit of a float32 up to 1.0


def _nucleus(probs: mx.array, mass: mx.array) -> mx.array:
    """The least probability in the smallest set of likeliest tokens that has `mass`."""
    return _search(
        probs, lambda kept: mx.sum(mx.where(kept, probs, 0.0), axis=-1, keepdims=True) >= mass
    )


def _top(probs: mx.array, count: mx.array) -> mx.array:
    """The probability of each row's `count`th token."""
    return _search(probs, lambda kept: mx.sum(kept, axis=-1, keepdims=True) >= count)


def _search(probs: mx.array, enough: Callable[[mx.array], mx.array]) -> mx.array:
    """The highest probability such that the tokens from there up are enough, bit by bit:
    positive floats are in the order of their bits.
    """
    found = mx.zeros((probs.shape[0], 1), dtype=mx.uint32)
    for bit in range(_ONE_BITS, -1, -1):
        tried = found | (1 << bit)
        found = mx.where(enough(probs >= tried.view(mx.float32)), tried, found)
    return found.view(mx.float32)


@mx.vmap
def _categorical(logits: mx.array, key: mx.array) -> mx.array:
    """logits: [vocabulary]. A draw of each row with a key of its own."""
    return mx.random.categorical(logits, key=key)
