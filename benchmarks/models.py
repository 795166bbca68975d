"""Models with random weights that never end by themselves, so that every answer is equally long.

python -m benchmarks.models small FOLDER
python -m benchmarks.models qwen3-0.6b FOLDER --bits 4
"""

import argparse
import json
from itertools import product
from pathlib import Path
from string import ascii_lowercase
from typing import Any

import mlx.core as mx
from mlx.utils import tree_map
from mlx_lm.utils import _get_classes, quantize_model, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from adapters.bench.prompts import WORDS

_QWEN3 = {
    "model_type": "qwen3",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
    "head_dim": 128,
    "num_key_value_heads": 8,
    "max_position_embeddings": 40960,
    "vocab_size": 151_936,
}

# The larger two are Qwen3's own figures, as their config.json on the hub has them.
SHAPES: dict[str, dict[str, Any]] = {
    "small": _QWEN3
    | {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "vocab_size": 4096,
    },
    "medium": _QWEN3
    | {
        "hidden_size": 512,
        "num_hidden_layers": 8,
        "intermediate_size": 1536,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 4096,
    },
    "qwen3-0.6b": _QWEN3
    | {
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "intermediate_size": 3072,
        "num_attention_heads": 16,
    },
    "qwen3-4b": _QWEN3
    | {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
    },
}

_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)
_MARKS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def make_model(folder: Path, shape: str, bits: int | None = None) -> Path:
    """Writes it in bfloat16, or quantised to so many bits."""
    folder.mkdir(parents=True, exist_ok=True)
    config = dict(SHAPES[shape])
    mx.random.seed(7)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    model.update(tree_map(lambda array: array.astype(mx.bfloat16), model.parameters()))
    if bits:
        model, config = quantize_model(model, config, group_size=64, bits=bits)
    save_model(folder, model, donate_model=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_tokenizer(folder, config["vocab_size"])
    return folder


def write_tokenizer(folder: Path, size: int) -> None:
    """The words of the prompts are tokens, and so is every byte; the rest are words made up, so
    that an answer that comes back in the next turn has the same tokens again.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = dict.fromkeys([*alphabet, *(f"Ġ{word}" for word in WORDS), *WORDS])
    made_up = (f"Ġ{''.join(letters)}" for letters in product(ascii_lowercase, repeat=4))
    while len(tokens) < size - len(_MARKS):
        tokens[next(made_up)] = None
    tokenizer = Tokenizer(models.BPE({t: n for n, t in enumerate(tokens)}, [], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(_MARKS)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|endoftext|>",
        "chat_template": _TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--bits", type=int)
    given = parser.parse_args()
    make_model(given.folder, given.shape, given.bits)


if __name__ == "__main__":
    main()
