"""What a model's files say it will need, against what MLX measures once it runs."""

import asyncio
import json
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from adapters.mlx import gpu
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.errors import EngineFailed, InvalidRequest
from domain.memory import CacheLayers, MemoryProfile
from domain.models import ModelCard, ModelId
from tests.tiny import QWEN3, make_model

ROOT = Path(__file__).parents[2]

DENSE = QWEN3 | {
    "hidden_size": 128,
    "num_hidden_layers": 8,
    "intermediate_size": 384,
    "num_attention_heads": 8,
    "max_position_embeddings": 2048,
}
MLA = {
    "vocab_size": 259,
    "hidden_size": 128,
    "intermediate_size": 384,
    "moe_intermediate_size": 128,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "n_shared_experts": 1,
    "n_routed_experts": 4,
    "routed_scaling_factor": 1.0,
    "kv_lora_rank": 64,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "v_head_dim": 32,
    "qk_nope_head_dim": 32,
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "norm_topk_prob": True,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_layer_freq": 1,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "rope_scaling": {"type": "yarn", "factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
}
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {name: value for name, value in DENSE.items() if name != "head_dim"}
    | {"num_key_value_heads": 8},
    "qwen3": DENSE,
    "gemma3_text": DENSE
    | {
        "sliding_window": 256,
        "sliding_window_pattern": 4,
        "query_pre_attn_scalar": 32,
        "rope_local_base_freq": 10000.0,
        "rope_global_base_freq": 10000.0,
    },
    "qwen3_moe": DENSE
    | {
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "moe_intermediate_size": 128,
        "norm_topk_prob": True,
    },
    "lfm2": {
        "vocab_size": 259,
        "hidden_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 2048,
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 128,
        "block_ff_dim": 384,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1, 3, 5, 7],
        "rope_theta": 10000.0,
    },
    "deepseek_v3": MLA,
}
DBRX = {
    "vocab_size": 259,
    "d_model": 128,
    "ffn_config": {"ffn_hidden_size": 128, "moe_num_experts": 4, "moe_top_k": 2},
    "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 10000.0},
    "n_layers": 4,
    "n_heads": 4,
}


def made(folder: Path, name: str, config: dict[str, Any], bits: int | None = None) -> ModelCard:
    make_model(folder, config | {"model_type": name}, bits=bits, eos=False)
    return ModelCard(ModelId.parse(folder.name), "", folder, 0, 2048, 0)


async def profile_of(card: ModelCard, kv_bits: int | None = None) -> MemoryProfile:
    return await MlxEngineLoader(MlxOptions()).profile(card, kv_bits)


def measure(folder: Path, context: int, requests: int) -> dict[str, int]:
    args = [sys.executable, "-m", "tests.mlx.footprint", folder, str(context), str(requests)]
    out = subprocess.run(args, cwd=ROOT, capture_output=True, check=True, text=True).stdout  # noqa: S603
    found: dict[str, int] = json.loads(out.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("name", "bits", "context"),
    [
        ("llama", None, 512),
        ("qwen3", None, 768),
        ("qwen3", 4, 512),
        ("gemma3_text", None, 512),
        ("qwen3_moe", None, 512),
        ("lfm2", None, 512),
        ("deepseek_v3", None, 512),
    ],
)
def test_the_need_is_what_a_full_batch_takes(
    tmp_path: Path, name: str, bits: int | None, context: int
) -> None:
    made(tmp_path / name, name, CONFIGS[name], bits)
    found = measure(tmp_path / name, context, 8)
    assert found["widest_batch"] == 8
    assert found["weights"] == found["footprint"]
    assert found["weights"] == pytest.approx(found["weights_measured"], rel=0.15)
    assert found["kv"] == pytest.approx(found["kv_measured"], rel=0.15)
    assert found["total"] == pytest.approx(found["total_measured"], rel=0.15)
    assert found["left"] < 100_000  # bytes; small constants of mlx-lm's modules


async def test_layers_that_grow_alike_are_counted_together(tmp_path: Path) -> None:
    windowed = await profile_of(made(tmp_path / "g", "gemma3_text", CONFIGS["gemma3_text"]))
    per_layer = 2 * 32 * 2 * 4  # heads, width, keys and values, float32
    assert set(windowed.layers) == {CacheLayers(2 * per_layer), CacheLayers(6 * per_layer, 256)}
    hybrid = await profile_of(made(tmp_path / "l", "lfm2", CONFIGS["lfm2"]))
    convolutions = 4 * 2 * 128 * 4  # layers, tokens kept, width, float32
    assert hybrid.layers == (CacheLayers(4 * 2 * 4 * 16 * 4), CacheLayers(fixed=convolutions))


async def test_a_quantised_cache_is_smaller_where_it_grows(tmp_path: Path) -> None:
    card = made(tmp_path / "g", "gemma3_text", CONFIGS["gemma3_text"])
    whole, eight, four = [await profile_of(card, bits) for bits in (None, 8, 4)]
    assert whole.weights == eight.weights == four.weights
    assert eight.layers[0] == whole.layers[0] if whole.layers[0].window else True
    grows = [
        next(group.bytes_per_token for group in found.layers if group.window is None)
        for found in (whole, eight, four)
    ]
    numbers = 2 * 2 * 32 * 2  # layers, heads, width, keys and values
    groups = numbers // 32  # of which each has a scale and a bias, float32
    assert grows == [4 * numbers, numbers + 8 * groups, numbers // 2 + 8 * groups]
    odd = made(tmp_path / "odd", "qwen3", DENSE | {"head_dim": 48})
    with pytest.raises(InvalidRequest, match="48"):
        await profile_of(odd, 8)


async def test_a_network_that_looks_at_values_is_profiled_without_them(tmp_path: Path) -> None:
    profile = await profile_of(made(tmp_path / "dbrx", "dbrx", DBRX))
    assert profile.layers == (CacheLayers(4 * 2 * 2 * 32 * 4),)
    assert profile.prefill > 0


def sparse_model(folder: Path) -> ModelCard:
    """Four billion parameters in half precision: 8 GB of holes."""
    config = DENSE | {
        "hidden_size": 2560,
        "num_hidden_layers": 36,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "max_position_embeddings": 40960,
    }
    hidden, inner, heads = 2560, 9728, 128
    shapes = {"model.embed_tokens.weight": [151936, hidden], "model.norm.weight": [hidden]}
    for n in range(36):
        shapes |= {
            f"model.layers.{n}.{name}.weight": shape
            for name, shape in {
                "self_attn.q_proj": [32 * heads, hidden],
                "self_attn.k_proj": [8 * heads, hidden],
                "self_attn.v_proj": [8 * heads, hidden],
                "self_attn.o_proj": [hidden, 32 * heads],
                "self_attn.q_norm": [heads],
                "self_attn.k_norm": [heads],
                "mlp.gate_proj": [inner, hidden],
                "mlp.up_proj": [inner, hidden],
                "mlp.down_proj": [hidden, inner],
                "input_layernorm": [hidden],
                "post_attention_layernorm": [hidden],
            }.items()
        }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2
        for side in shape:
            size *= side
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return ModelCard(ModelId.parse(folder.name), "", folder, end, 40960, 0)


async def test_no_weight_is_read(tmp_path: Path) -> None:
    card = sparse_model(tmp_path / "sparse")
    mx.reset_peak_memory()
    before, started = mx.get_active_memory(), time.monotonic()
    profile = await profile_of(card)
    assert time.monotonic() - started < 10
    assert mx.get_peak_memory() - before < 1_000_000
    assert profile.weights == card.weight_bytes
    assert profile.layers == (CacheLayers(36 * 8 * 128 * 2 * 2),)


async def test_a_profile_is_asked_for_once(tmp_path: Path) -> None:
    card = made(tmp_path / "m", "qwen3", DENSE)
    loader = MlxEngineLoader(MlxOptions())
    first, second = await asyncio.gather(loader.profile(card, None), loader.profile(card, None))
    assert second is first
    (card.location / "config.json").unlink()
    assert await loader.profile(card, None) is first
    with pytest.raises(EngineFailed, match="could not be read"):
        await loader.profile(card, 8)


async def test_one_thread_answers_every_question(tmp_path: Path) -> None:
    card = made(tmp_path / "m", "qwen3", DENSE)
    loader = MlxEngineLoader(MlxOptions())
    before = threading.active_count()
    await asyncio.gather(*(loader.profile(card, bits) for bits in (None, 4, 8)))
    assert threading.active_count() == before + 1


async def test_no_code_of_a_model_is_run_for_its_profile(tmp_path: Path) -> None:
    card = made(tmp_path / "m", "qwen3", DENSE)
    config = json.loads((card.location / "config.json").read_text())
    (card.location / "config.json").write_text(json.dumps(config | {"model_file": "evil.py"}))
    with pytest.raises(EngineFailed, match="never runs code"):
        await profile_of(card)


def test_the_device_has_memory() -> None:
    assert gpu.safe_memory() > 100_000_000


AT_ONCE = """
import asyncio, sys
from pathlib import Path
from adapters.mlx.loader import MlxEngineLoader
from adapters.mlx.mailbox import MlxOptions
from domain.models import ModelCard, ModelId
card = ModelCard(ModelId.parse("m"), "", Path(sys.argv[1]), 0, 2048, 0)
print(asyncio.run(MlxEngineLoader(MlxOptions()).profile(card, None)).weights)
"""


def test_a_process_may_end_right_after(tmp_path: Path) -> None:
    folder = made(tmp_path / "m", "qwen3", DENSE).location
    for _ in range(3):
        args = [sys.executable, "-c", AT_ONCE, str(folder)]
        subprocess.run(args, cwd=ROOT, capture_output=True, check=True)  # noqa: S603
