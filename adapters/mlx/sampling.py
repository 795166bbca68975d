"""Sampling settings into mlx-lm's samplers and logits processors, one set a request."""

import secrets
from collections.abc import Callable

import mlx.core as mx
from mlx_lm.sample_utils import greedy_sampler

from domain.chat import Sampling

Sampler = Callable[[mx.array], mx.array]  # log-probabilities [rows, vocabulary] -> tokens [rows]
Processor = Callable[[mx.array, mx.array], mx.array]  # (tokens, logits [1, vocabulary]) -> logits

_COLDEST = 1e-4  # below it, float32 overflows and the choice is the greedy one anyway


def make_sampler(sampling: Sampling) -> Sampler:
    """Greedy requests share one function, which mlx-lm calls once for the whole batch."""
    if sampling.temperature < _COLDEST or sampling.top_k == 1:
        greedy: Sampler = greedy_sampler
        return greedy
    return _RandomSampler(sampling)


class _RandomSampler:
    """Draws from the request's own random keys; the global random state is never touched.

    Temperature comes first, then min_p, top_k and top_p, as in vLLM.
    """

    def __init__(self, sampling: Sampling) -> None:
        seed = secrets.randbits(64) if sampling.seed is None else sampling.seed % 2**64
        self._key = mx.random.key(seed)
        self._sampling = sampling

    def __call__(self, logprobs: mx.array) -> mx.array:
        self._key, key = mx.random.split(self._key)
        logits = logprobs.astype(mx.float32) / self._sampling.temperature
        s = self._sampling
        if s.top_p == 1.0 and s.top_k == 0 and s.min_p == 0.0:
            return mx.random.categorical(logits, key=key)
        order = mx.argsort(-logits, axis=-1)
        ranked = mx.take_along_axis(logits, order, axis=-1)
        rank = mx.random.categorical(self._filter(ranked), key=key)
        return mx.take_along_axis(order, rank[:, None], axis=-1)[:, 0]

    def _filter(self, ranked: mx.array) -> mx.array:
        """ranked: logits in falling order. The likeliest token always stays."""
        s = self._sampling
        probs = mx.softmax(ranked, axis=-1)
        rank = mx.arange(ranked.shape[-1])
        keep = (mx.cumsum(probs, axis=-1) - probs) < s.top_p
        if s.top_k:
            keep = keep & (rank < s.top_k)
        if s.min_p:
            keep = keep & (probs >= s.min_p * probs[:, :1])
        return mx.where(keep | (rank == 0), ranked, -mx.inf)


def make_processors(sampling: Sampling, prompt_tokens: int, vocabulary: int) -> list[Processor]:
    """Penalties and biases, in the order bias, repetition, presence and frequency.

    prompt_tokens: the length of the prompt; presence and frequency look at the answer only (as
    OpenAI's do), repetition at both. vocabulary: the number of logits.
    """
    processors: list[Processor] = []
    if sampling.logit_bias:
        processors.append(_bias(dict(sampling.logit_bias)))
    if sampling.repetition_penalty != 1.0:
        processors.append(_repetition(sampling.repetition_penalty, vocabulary))
    if sampling.presence_penalty or sampling.frequency_penalty:
        processors.append(
            _occurrence(
                sampling.presence_penalty, sampling.frequency_penalty, prompt_tokens, vocabulary
            )
        )
    return processors


def _bias(biases: dict[int, float]) -> Processor:
    ids = mx.array(list(biases.keys()))
    values = mx.array(list(biases.values()))

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        return logits.at[:, ids].add(values.astype(logits.dtype))

    return process


def _counts(tokens: mx.array, vocabulary: int) -> mx.array:
    return mx.zeros((vocabulary,)).at[tokens].add(1.0)


def _repetition(penalty: float, vocabulary: int) -> Processor:
    """Sign-aware and multiplicative (https://arxiv.org/abs/1909.05858)."""

    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        seen = _counts(tokens, vocabulary) > 0
        punished = mx.where(logits < 0, logits * penalty, logits / penalty)
        return mx.where(seen, punished, logits)

    return process


def _occurrence(
    presence: float, frequency: float, prompt_tokens: int, vocabulary: int
) -> Processor:
    def process(tokens: mx.array, logits: mx.array) -> mx.array:
        counts = _counts(tokens[prompt_tokens:], vocabulary)
        punishment = presence * (counts > 0) + frequency * counts
        return logits - punishment.astype(logits.dtype)

    return process
