"""Log-probabilities into token scores. Worker thread only."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from adapters.mlx.detokenizer import Vocabulary
from domain.outputs import TokenScore

if TYPE_CHECKING:
    import numpy.typing as npt

_LEAST_LOGPROB = -9999.0  # what OpenAI writes for impossible tokens; JSON has no infinity
_SLICE = 32  # prompt tokens whose logits are in memory at once; others wait for that long


def score(vocabulary: Vocabulary, token: int, logprobs: mx.array, alternatives: int) -> TokenScore:
    """logprobs: [vocabulary], normalised. alternatives: how many of the likeliest to name."""
    values = np.array(logprobs.astype(mx.float32))
    likeliest = (_entry(vocabulary, int(t), values) for t in _likeliest(values, alternatives))
    chosen = _entry(vocabulary, token, values)
    return TokenScore(chosen.token, chosen.raw, chosen.logprob, tuple(likeliest))


def prompt_scores(
    network: Any,
    caches: Sequence[Any],
    vocabulary: Vocabulary,
    tokens: Sequence[int],
    alternatives: int,
) -> Iterator[list[TokenScore]]:
    """A score for every token of a prompt, a slice at a time; the first has no log-probability.

    A pass of its own: a batched prefill keeps no logits. caches: a layer's each, empty.
    """
    first = vocabulary.bytes_of(tokens[0])
    yield [TokenScore(first.decode("utf-8", "replace"), first, None)]
    for start in range(0, len(tokens) - 1, _SLICE):
        inputs = tokens[start : min(start + _SLICE, len(tokens) - 1)]
        logits = network(mx.array([inputs]), cache=caches)[0].astype(mx.float32)
        logprobs = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
        following = tokens[start + 1 : start + 1 + len(inputs)]
        yield [
            score(vocabulary, token, logprobs[row], alternatives)
            for row, token in enumerate(following)
        ]


def _entry(vocabulary: Vocabulary, token: int, logprobs: "npt.NDArray[np.float32]") -> TokenScore:
    raw = vocabulary.bytes_of(token)
    logprob = max(float(logprobs[token]), _LEAST_LOGPROB)
    return TokenScore(raw.decode("utf-8", "replace"), raw, logprob)


def _likeliest(logprobs: "npt.NDArray[np.float32]", count: int) -> "npt.NDArray[np.int64]":
    """The ids of the `count` highest, in falling order."""
    count = min(count, len(logprobs))
    top = np.argpartition(-logprobs, count - 1)[:count] if count else np.array([], np.int64)
    return top[np.argsort(-logprobs[top], kind="stable")]
