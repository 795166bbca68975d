"""A model in memory: loaded with care, measured, ready to be batched. Worker thread only."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.tokenizer_utils import TokenizerWrapper
from mlx_lm.utils import load as load_with_mlx_lm
from safetensors import SafetensorError, safe_open

from adapters.mlx.detokenizer import Vocabulary
from adapters.mlx.grammar import GrammarCompiler
from adapters.mlx.markup import make_markup
from domain.errors import ModelUnusable
from domain.models import ModelCard
from domain.outputs import Markup


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """footprint: bytes of all parameters. vocabulary_size: the number of logits."""

    network: Any  # one of mlx_lm.models
    tokenizer: TokenizerWrapper
    vocabulary: Vocabulary
    markup: Markup
    footprint: int
    vocabulary_size: int
    grammars: GrammarCompiler


def load(card: ModelCard) -> LoadedModel:
    """Read a model from its folder. Raises ModelUnusable with a reason a user can act on.

    No code that comes with a model is ever run, and only safetensors files are read.
    """
    _check(card.location)
    # It warns of prompts that are longer than the context, which are refused in our own words.
    logging.getLogger("transformers").setLevel(logging.ERROR)
    tokenizer_options = {"trust_remote_code": False, "local_files_only": True}
    network, tokenizer = load_with_mlx_lm(
        str(card.location), tokenizer_config=tokenizer_options, trust_remote_code=False
    )[:2]
    vocabulary_size = _try_out(network)
    return LoadedModel(
        network,
        tokenizer,
        Vocabulary(tokenizer),
        make_markup(tokenizer),
        _size(network),
        vocabulary_size,
        GrammarCompiler(tokenizer, vocabulary_size),
    )


def _check(folder: Path) -> None:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text("utf-8"))
    if "model_file" in config:
        raise ModelUnusable(
            f"`{folder.name}` wants to run a program of its own (`model_file` in its config); "
            "Portico never runs code that comes with a model."
        )
    for file in folder.glob("*.safetensors"):
        try:
            # Checks the header against the file's size, which mlx's own loader trusts
            # (ml-explore/mlx#4213).
            with safe_open(file, framework="np"):
                pass
        except SafetensorError as error:
            raise ModelUnusable(f"`{file.name}` is damaged: {error}") from error


def _try_out(network: Any) -> int:
    """One token through the network: it works, it can be batched, and this many logits it has."""
    cache = make_prompt_cache(network)
    unbatched = {type(layer).__name__ for layer in cache if not hasattr(layer, "merge")}
    if unbatched:
        raise ModelUnusable(
            f"mlx-lm can't batch the {', '.join(sorted(unbatched))} that this model's layers need."
        )
    logits = network(mx.array([[0]]), cache=cache)
    mx.eval(logits)
    return int(logits.shape[-1])


def _size(network: Any) -> int:
    arrays: list[tuple[str, mx.array]] = tree_flatten(network.parameters())  # type: ignore[assignment]
    return sum(array.nbytes for _, array in arrays)
