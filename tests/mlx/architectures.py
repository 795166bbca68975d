"""A tiny model for each kind of cache that mlx-lm has."""

from typing import Any

from tests.mlx.test_loading import GEMMA3, MAMBA
from tests.tiny import QWEN3

_COMMON: dict[str, Any] = {
    "vocab_size": 259,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-6,
    "norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}
MAMBA2 = _COMMON | {
    "model_type": "mamba2",
    "num_heads": 4,
    "head_dim": 32,
    "state_size": 16,
    "layer_norm_epsilon": 1e-6,
    "conv_kernel": 4,
    "n_groups": 1,
    "use_bias": False,
    "use_conv_bias": True,
    "time_step_limit": [0.0, 100.0],
    "time_step_rank": "auto",
}
LFM2 = _COMMON | {
    "model_type": "lfm2",
    "conv_bias": False,
    "conv_L_cache": 3,
    "block_dim": 64,
    "block_multiple_of": 32,
    "block_ffn_dim_multiplier": 1.0,
    "block_auto_adjust_ff_dim": False,
    "full_attn_idxs": [1],
}
QWEN3_NEXT = _COMMON | {
    "model_type": "qwen3_next",
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 32,
    "linear_value_head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "num_experts": 0,
    "num_experts_per_tok": 1,
    "decoder_sparse_step": 1,
    "shared_expert_intermediate_size": 64,
    "mlp_only_layers": [],
    "moe_intermediate_size": 64,
    "partial_rotary_factor": 0.5,
    "full_attention_interval": 2,
}
JAMBA = _COMMON | {
    "model_type": "jamba",
    "attn_layer_offset": 1,
    "attn_layer_period": 2,
    "expert_layer_offset": 1,
    "expert_layer_period": 2,
    "mamba_d_conv": 4,
    "mamba_d_state": 8,
    "mamba_expand": 2,
    "num_experts": 1,
    "num_experts_per_tok": 1,
}
FALCON_H1 = _COMMON | {
    "model_type": "falcon_h1",
    "mamba_chunk_size": 32,
    "mamba_d_head": 32,
    "mamba_d_ssm": 64,
    "mamba_d_state": 16,
    "mamba_n_heads": 2,
}
RECURRENT_GEMMA = _COMMON | {
    "model_type": "recurrent_gemma",
    "attention_bias": False,
    "conv1d_width": 4,
    "logits_soft_cap": 30.0,
    "num_key_value_heads": 1,
    "attention_window_size": 16,
    "block_types": ["recurrent", "attention"],
}
LONGCAT = _COMMON | {
    "model_type": "longcat_flash",
    "attention_method": "MLA",
    "zero_expert_type": "identity",
    "ffn_hidden_size": 64,
    "moe_topk": 2,
    "expert_ffn_hidden_size": 32,
    "n_routed_experts": 4,
    "zero_expert_num": 2,
    "num_layers": 2,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
    "routed_scaling_factor": 1.0,
    "mla_scale_q_lora": True,
    "mla_scale_kv_lora": True,
    "attention_bias": False,
}
DEEPSEEK_V32 = _COMMON | {
    "model_type": "deepseek_v32",
    "index_head_dim": 32,
    "index_n_heads": 2,
    "index_topk": 16,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 2,
    "kv_lora_rank": 32,
    "q_lora_rank": 32,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}
_LLAMA4_TEXT = _COMMON | {
    "model_type": "llama4_text",
    "num_hidden_layers": 4,
    "attention_bias": False,
    "attention_chunk_size": 16,
    "interleave_moe_layer_step": 5,
    "intermediate_size_mlp": 128,
    "num_experts_per_tok": 1,
    "num_local_experts": 1,
    "rope_scaling": None,
    "use_qk_norm": False,
}
LLAMA4: dict[str, Any] = {"model_type": "llama4", "text_config": _LLAMA4_TEXT, "vocab_size": 259}

BY_NAME: dict[str, dict[str, Any]] = {
    "plain": QWEN3,
    "rotating": GEMMA3,
    "recurrent": MAMBA,
    "recurrent mamba2": MAMBA2,
    "hybrid lfm2": LFM2,
    "hybrid qwen3_next": QWEN3_NEXT,
    "hybrid jamba": JAMBA,
    "hybrid of recurrent and rotating": RECURRENT_GEMMA,
    "list of arrays and plain": FALCON_H1,
    "list of plain": LONGCAT,
    "list with an indexer": DEEPSEEK_V32,
    "chunked": LLAMA4,
}
