"""Tiny models with random weights, made on the spot: every architecture, no download."""

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import _get_classes, quantize_model, save_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{{ '<|im_start|>assistant\n' }}"
)

QWEN3: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "vocab_size": 259,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}


def make_model(
    folder: Path,
    config: dict[str, Any] = QWEN3,
    *,
    bits: int | None = None,
    template: str | None = CHATML,
    eos: bool = True,
) -> Path:
    """Write a model with random weights to `folder`. Without `eos` it never ends by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    mx.random.seed(7)
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(config))
    # Sharper than the initial weights, so that greedy choices are no coin flips.
    sharp = [(name, array * 3) for name, array in tree_flatten(model.parameters())]
    model.load_weights(sharp)
    written = dict(config)
    if bits:
        model, written = quantize_model(model, written, group_size=32, bits=bits)
    end = _write_tokenizer(folder, template)
    written["eos_token_id"] = end if eos else None
    save_model(folder, model, donate_model=True)
    (folder / "config.json").write_text(json.dumps(written))
    return folder


def _write_tokenizer(folder: Path, template: str | None) -> int:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({c: n for n, c in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
    }
    if template:
        settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return int(tokenizer.token_to_id("<|im_end|>"))
