"""Answers with and without states that were kept, for the tests of the prefix cache."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model

from adapters.mlx.prefix_cache import PrefixCache
from adapters.mlx.quantized_kv import quantize_caches
from tests.mlx.architectures import BY_NAME
from tests.tiny import QWEN3, make_model

SLICE = 16  # tokens of prefill, so that prompts take several
NEW = 20  # tokens of an answer
SCOPE = "a key"
KINDS = [*BY_NAME, "quantised"]
TRIMMABLE = {"plain", "list of plain", "list with an indexer", "quantised"}


def prompt(seed: int, length: int) -> list[int]:
    return [int(t) for t in np.random.default_rng(seed).integers(0, 250, length)]


@contextmanager
def uncompiled() -> Iterator[None]:
    """MLX's CPU build runs a C++ compiler for each compiled function: seconds for each model."""
    mx.disable_compile()
    yield
    mx.enable_compile()


@dataclass
class Model:
    network: Any
    kv_bits: int | None = None
    answers: dict[tuple[int, ...], list[int]] = field(default_factory=dict)

    @classmethod
    def make(cls, folder: Path, kind: str) -> "Model":
        network = load_model(make_model(folder / "model", BY_NAME.get(kind, QWEN3)))[0]
        return cls(network, 8 if kind == "quantised" else None)

    def caches(self) -> list[Any]:
        caches: list[Any] = make_prompt_cache(self.network)
        return quantize_caches(caches, self.kv_bits, 32) if self.kv_bits else caches

    def read(self, caches: list[Any], tokens: list[int]) -> mx.array:
        """Logits after the last token."""
        for start in range(0, len(tokens), SLICE):
            piece = mx.array([tokens[start : start + SLICE]])
            logits = self.network(piece, cache=caches)[:, -1]
            mx.eval(logits)
        return logits

    def go_on(self, caches: list[Any], tokens: list[int], new: int = NEW) -> list[int]:
        """The tokens that follow; the caches come to hold all of them but the last."""
        said: list[int] = []
        while len(said) < new:
            said.append(int(mx.argmax(self.read(caches, tokens)[0])))
            tokens = said[-1:]
        return said

    def answer(self, tokens: list[int], new: int = NEW) -> list[int]:
        """Without a prefix cache."""
        if len(self.answers.get(tuple(tokens), ())) < new:
            self.answers[tuple(tokens)] = self.go_on(self.caches(), tokens, new)
        return self.answers[tuple(tokens)][:new]


def served(
    model: Model, cache: PrefixCache, tokens: list[int], new: int = NEW
) -> tuple[int, list[int]]:
    """How many tokens a prefix cache had of a prompt, and the answer."""
    count, caches = cache.find(SCOPE, tokens) or (0, model.caches())
    return count, model.go_on(caches, tokens[count:], new)


def have_turn(model: Model, cache: PrefixCache, tokens: list[int], stops: list[int]) -> list[int]:
    """Answer a prompt and keep the states at `stops`, and at the end; all the tokens kept last."""
    caches, done = model.caches(), 0
    for stop in stops:
        model.read(caches, tokens[done:stop])
        assert cache.keep(SCOPE, tokens[:stop], caches)
        done = stop
    said = model.go_on(caches, tokens[done:])
    whole = tokens + said[:-1]
    assert cache.keep(SCOPE, whole, caches)
    return whole
