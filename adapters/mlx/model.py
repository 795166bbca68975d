"""A model in memory: loaded with care, measured, ready to be batched. Worker thread only."""

import logging
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load as load_with_mlx_lm

from adapters.mlx.detokenizer import Vocabulary
from adapters.mlx.files import check, require_batching
from adapters.mlx.grammar import GrammarCompiler
from adapters.mlx.markup import make_markup
from adapters.mlx.quantized_kv import KvQuantization, plan_quantization
from adapters.mlx.snapshot import always_trimmable
from domain.models import ModelCard
from domain.outputs import Markup


@dataclass(frozen=True, slots=True)
class DraftModel:
    """A small model that guesses what a large one will say.

    tokens: guesses of one step. vocabulary_size: the number of its logits.
    """

    network: Any
    tokens: int
    vocabulary_size: int
    context_length: int


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """footprint: bytes of all parameters, the draft's included. vocabulary_size: the number of
    logits. exact_states: its caches can't be cut to fewer tokens, so that they serve only prompts
    that begin with all.
    """

    network: Any  # one of mlx_lm.models
    tokenizer: TokenizerWrapper
    vocabulary: Vocabulary
    markup: Markup
    footprint: int
    vocabulary_size: int
    grammars: GrammarCompiler
    exact_states: bool
    kv: KvQuantization | None = None
    draft: DraftModel | None = None

    def make_caches(self) -> list[Any]:
        """What a request begins with; a cache for each layer."""
        return self.kv.make_caches(self.network) if self.kv else make_prompt_cache(self.network)


def load(card: ModelCard, kv_bits: int | None = None) -> LoadedModel:
    """Read a model from its folder. Raises ModelUnusable with a reason a user can act on, and
    InvalidRequest when its KV caches can't be kept at `kv_bits`.

    No code that comes with a model is ever run, and only safetensors files are read.
    """
    network, tokenizer = read(card)
    vocabulary_size = try_out(network)
    return LoadedModel(
        network,
        tokenizer,
        Vocabulary(tokenizer),
        make_markup(tokenizer),
        weight_bytes(network),
        vocabulary_size,
        GrammarCompiler(tokenizer, vocabulary_size),
        not always_trimmable(make_prompt_cache(network)),
        plan_quantization(network, kv_bits) if kv_bits else None,
    )


def read(card: ModelCard) -> tuple[Any, TokenizerWrapper]:
    """A network and its tokenizer."""
    check(card.location)
    # It warns of prompts that are longer than the context, which are refused in our own words.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer_options = {"trust_remote_code": False, "local_files_only": True}
    network, tokenizer = load_with_mlx_lm(
        str(card.location), tokenizer_config=tokenizer_options, trust_remote_code=False
    )[:2]
    return network, tokenizer


def try_out(network: Any) -> int:
    """One token through the network: it works, it can be batched, and this many logits it has."""
    cache = make_prompt_cache(network)
    require_batching(cache)
    logits = network(mx.array([[0]]), cache=cache)
    mx.eval(logits)
    return int(logits.shape[-1])


def weight_bytes(network: Any) -> int:
    """Of all parameters, loaded or not."""
    arrays: list[tuple[str, mx.array]] = tree_flatten(network.parameters())  # type: ignore[assignment]
    return sum(array.nbytes for _, array in arrays)
